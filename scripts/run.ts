import { readFileSync } from 'node:fs'
import * as z from 'zod/mini'
import type { Command } from '../lib/cli/flags.ts'
import { readOperatorsFile } from '../lib/host/files.ts'
import { parseDocument } from '../lib/host/yaml.ts'
import { misuse } from '../lib/job/problem.ts'
import { described, FilePath } from '../lib/job/spec.ts'

/** The command that reads its task from a document. */
export const runCommand: Command = {
  name: 'run',
  summary: 'Run a job from a document: task and the same names as the flags',
  positional: ['job'],
  examples: [['cowhand run web1.yaml --dry-run', 'what a job would do']],
  job: z.strictObject({ job: described(FilePath, 'file with the job, YAML or JSON; - for standard input') }),
}

/** A job document: `task` names the command, the rest are its flags. @throws {Problem} BAD_SPEC */
export async function readJob(file: string): Promise<{ name: string; job: Record<string, unknown> }> {
  const what = file === '-' ? 'the job on standard input' : `job "${file}"`
  const document = await parseDocument(file === '-' ? readFileSync(0, 'utf8') : readOperatorsFile(file), what)
  if (typeof document !== 'object' || document === null || !('task' in document) || typeof document.task !== 'string')
    misuse(`Cannot read ${what}: it has no "task"`, 'name it, such as task: create; cowhand schema has the whole form')
  const { task, ...job } = document
  return { name: task as string, job }
}
