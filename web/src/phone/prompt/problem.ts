// Why a prompt cannot be made.

/** `package`: the package's files are at fault; `messages`: the model does not take this conversation. */
export class PromptProblem extends Error {
  constructor(
    readonly kind: 'package' | 'messages',
    message: string,
  ) {
    super(message);
    this.name = 'PromptProblem';
  }
}
