// The app's own texts, and its words for what is different beside a server. `{name}` stands for a value.

import { filled, type Language, language, type TextKey } from '../i18n';

const en = {
  noModel: 'No model is loaded. Choose one in “Models”.',
  models: 'Models',
  chooseModel: 'Choose a model',
  welcomeTitle: 'Add a model',
  welcomeText:
    'PocketGLM runs language models on this phone, without a network. A model comes as a file: make it on a computer with {command}, copy it to the phone, and choose it here.',
  welcomeChoose: 'Choose one of your models to begin.',
  importZip: 'Add from a .zip file',
  importFolder: 'Add from a folder',
  importRuns: 'Adding a model',
  importProgress: '{bytes} of {total}',
  importCheck: 'Every file is checked while it is copied.',
  importAgain: 'Interrupted: {copied} of {bytes} are here. Choose the same file or folder again to continue.',
  imported: '“{name}” was added',
  use: 'Use',
  inUse: 'In use',
  stopModel: 'Stop',
  loading: 'Loading “{name}” …',
  failed: '“{name}” does not run: {reason}',
  tryAgain: 'Try again',
  pausedLine: '“{name}” was stopped to free memory. It starts again with your next message.',
  restarted: 'The engine ended unexpectedly and was started again. The conversation is as it was.',
  memoryLow: 'The phone is short of memory. Closing other apps helps.',
  memoryStopped: 'The answer was stopped: the phone is short of memory.',
  paused: 'The model was stopped to free memory. It starts again with your next message.',
  renameModel: 'Rename “{name}”',
  deleteModel: 'Delete “{name}”',
  deleteAsk: 'Delete “{name}” and its {bytes} from this phone?',
  size: '{bytes}, {blocks} blocks',
  planFits:
    '{context} tokens of context. Keeps {memory} of memory for itself; weights are read from storage.',
  planStreamed:
    '{context} tokens of context. Does not fit into memory as a whole: parts are read again for every token, which is slow.',
  planTooLarge: 'Does not fit into this phone’s memory now: {needed} are needed, {free} are free.',
  device: 'This phone: {free} of {total} memory free, {storage} storage free.',
  engineChoice: 'Memory and speed',
  engineChoiceHint: 'Takes effect when a model is loaded. “Automatic” chooses what this phone can hold.',
  automatic: 'Automatic',
  contextChoice: 'Context',
  kvChoice: 'KV cache',
  kvFloat16: '16 bits',
  kvInt8: '8 bits, half the memory',
  threadsChoice: 'Threads',
  details: 'Details',
  tooLong:
    'The conversation has {prompt} tokens, the context holds {total}. Start a new one, or choose a larger context.',
  promptProblem: 'The model’s package cannot take this conversation: {reason}',
  engineGone: 'The engine ended. It is being started again.',
  errorBusy: 'Something else is still running. Try again in a moment.',
  errorMissing: 'This model is no longer here.',
  errorExists: 'This model is here already.',
  errorSource: 'The file or folder cannot be read, or is not what it should be: {file}',
  errorPackage:
    'This is not a PocketGLM model, or one that this version does not know. Make it with {command}.',
  errorDamaged: 'A file is damaged: {file}. Copy the model to the phone again.',
  errorStorage: 'Not enough storage: {needed} are needed, {free} are free.',
  errorMemory:
    'Not enough memory: {needed} are needed, {free} are free. Close other apps, choose a shorter context, or a smaller model.',
  errorEngine: 'The engine refuses it: {reason}',
  errorCrashed: 'The engine ends again and again.',
  errorInternal: 'Something went wrong in the app: {reason}',
};

export type PhoneKey = keyof typeof en;

const zh: Record<PhoneKey, string> = {
  noModel: '没有加载模型。请在“模型”中选择一个。',
  models: '模型',
  chooseModel: '选择模型',
  welcomeTitle: '添加模型',
  welcomeText:
    'PocketGLM 在这部手机上运行语言模型，不需要网络。模型是一个文件：在电脑上用 {command} 生成，复制到手机，然后在这里选择。',
  welcomeChoose: '请选择一个模型开始。',
  importZip: '从 .zip 文件添加',
  importFolder: '从文件夹添加',
  importRuns: '正在添加模型',
  importProgress: '{bytes} / {total}',
  importCheck: '复制时会校验每个文件。',
  importAgain: '已中断：已有 {copied}，共 {bytes}。再次选择同一文件或文件夹即可继续。',
  imported: '已添加“{name}”',
  use: '使用',
  inUse: '使用中',
  stopModel: '停止',
  loading: '正在加载“{name}”…',
  failed: '“{name}”无法运行：{reason}',
  tryAgain: '重试',
  pausedLine: '为释放内存已停止“{name}”，发送下一条消息时会重新启动。',
  restarted: '引擎意外结束，已重新启动。对话没有变化。',
  memoryLow: '手机内存不足，关闭其他应用会有帮助。',
  memoryStopped: '手机内存不足，已停止回答。',
  paused: '为释放内存已停止模型，发送下一条消息时会重新启动。',
  renameModel: '重命名“{name}”',
  deleteModel: '删除“{name}”',
  deleteAsk: '要从手机中删除“{name}”（{bytes}）吗？',
  size: '{bytes}，{blocks} 层',
  planFits: '上下文 {context} 个词元。自身占用内存 {memory}；权重从存储中读取。',
  planStreamed: '上下文 {context} 个词元。内存放不下整个模型：每个词元都要重新读取一部分，速度较慢。',
  planTooLarge: '目前内存放不下：需要 {needed}，可用 {free}。',
  device: '本机：内存可用 {free}，共 {total}；存储可用 {storage}。',
  engineChoice: '内存与速度',
  engineChoiceHint: '加载模型时生效。“自动”会选择本机能容纳的设置。',
  automatic: '自动',
  contextChoice: '上下文',
  kvChoice: 'KV 缓存',
  kvFloat16: '16 位',
  kvInt8: '8 位，内存减半',
  threadsChoice: '线程',
  details: '详情',
  tooLong: '对话有 {prompt} 个词元，上下文只能容纳 {total} 个。请开始新对话，或选择更长的上下文。',
  promptProblem: '模型包无法处理这段对话：{reason}',
  engineGone: '引擎已结束，正在重新启动。',
  errorBusy: '还有其他操作在进行，请稍后再试。',
  errorMissing: '这个模型已不存在。',
  errorExists: '这个模型已经添加过了。',
  errorSource: '无法读取该文件或文件夹，或内容不对：{file}',
  errorPackage: '这不是 PocketGLM 模型，或者当前版本不认识它。请用 {command} 生成。',
  errorDamaged: '文件已损坏：{file}。请重新把模型复制到手机。',
  errorStorage: '存储空间不足：需要 {needed}，可用 {free}。',
  errorMemory: '内存不足：需要 {needed}，可用 {free}。请关闭其他应用，选择更短的上下文或更小的模型。',
  errorEngine: '引擎拒绝了它：{reason}',
  errorCrashed: '引擎反复结束。',
  errorInternal: '应用出错：{reason}',
};

export const TEXTS: Record<Language, Record<PhoneKey, string>> = { en, zh };

/** A text of the app; reading it inside a component subscribes the component to the language. */
export function p(key: PhoneKey, values: Record<string, string | number> = {}): string {
  return filled(TEXTS[language.value][key], values);
}

/** What the page says otherwise than in a browser. */
export const REPLACED: Record<Language, Partial<Record<TextKey, string>>> = {
  en: {
    emptyText: 'The model runs on this phone. Nothing you write leaves it.',
    noConversations: 'Your conversations appear here. They are kept on this phone only.',
    storageFailed: 'Conversations cannot be kept: is the storage full? They are lost when the app ends.',
    memoryNote: 'Weights are mapped from storage: the system may drop and read them again.',
  },
  zh: {
    emptyText: '模型在这部手机上运行，你写的内容不会离开它。',
    noConversations: '对话会显示在这里，只保存在这部手机上。',
    storageFailed: '无法保存对话：存储空间是否已满？应用结束后对话会丢失。',
    memoryNote: '权重从存储映射：系统可以丢弃后再读取。',
  },
};
