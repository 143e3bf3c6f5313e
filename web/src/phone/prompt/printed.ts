// Where a template turns values into text: the library writes true, false, lists and objects as JavaScript does.

/** What of the library's syntax tree is looked at. */
export interface TreeNode {
  type: string;
}

/** Statements whose value is not text of the template. */
const SILENT = new Set(['Set', 'Macro', 'Comment', 'Break', 'Continue']);
const BLOCKS = ['body', 'alternate', 'defaultBlock'];

/** Every expression whose value becomes text: `{{ ... }}`, and both sides of `~`. */
export function printedNodes(tree: unknown): Set<unknown> {
  const printed = new Set<unknown>();
  for (const node of nodesOf(tree)) {
    const fields = node as unknown as Record<string, unknown>;
    for (const statement of BLOCKS.flatMap((name) => listOf(fields[name])))
      if (!SILENT.has((statement as TreeNode).type)) printed.add(statement);
    if (node.type === 'BinaryExpression' && (fields.operator as { value?: unknown }).value === '~') {
      printed.add(fields.left);
      printed.add(fields.right);
    }
  }
  return printed;
}

/** Python's text for a value of this type, undefined where the library's is the same. */
export function pythonText(type: string, value: unknown): string | undefined {
  if (type === 'BooleanValue') return value === true ? 'True' : 'False';
  if (type === 'NullValue') return 'None';
  if (type === 'ArrayValue' || type === 'TupleValue' || type === 'ObjectValue')
    throw new Error('it writes a list or an object as text; `tojson` is missing');
  return undefined;
}

function* nodesOf(value: unknown): Generator<TreeNode> {
  if (typeof value !== 'object' || value === null) return;
  if (value instanceof Map) yield* nodesOf([...value.entries()].flat());
  else if (Array.isArray(value)) for (const entry of value) yield* nodesOf(entry);
  else {
    if (typeof (value as TreeNode).type === 'string') yield value as TreeNode;
    yield* nodesOf(Object.values(value));
  }
}

function listOf(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}
