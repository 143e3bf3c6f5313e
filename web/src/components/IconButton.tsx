import type { LucideIcon } from 'lucide-preact';

interface Props {
  icon: LucideIcon;
  label: string;
  onClick: (event: MouseEvent) => void;
  text?: boolean; // shows the label beside the icon
  expanded?: boolean;
  disabled?: boolean;
}

/** A button with an icon; its label is its name and, without `text`, its tooltip. */
export function IconButton({ icon: Icon, label, onClick, text = false, expanded, disabled = false }: Props) {
  return (
    <button
      type="button"
      class={text ? 'icon-button with-text' : 'icon-button'}
      aria-label={text ? undefined : label}
      title={text ? undefined : label}
      aria-expanded={expanded}
      disabled={disabled}
      onClick={onClick}
    >
      <Icon size={18} aria-hidden="true" />
      {text && <span>{label}</span>}
    </button>
  );
}
