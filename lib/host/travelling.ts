import { fileAt, ownNamesIn } from './files.ts'

/** A file that travels with an instance: `name` is what it arrives as, `path` where it is below the instance now. */
export interface Travelling {
  name: string
  path: string
  /** Allocated, bytes. */
  size: number
}

/** What every instance may have beside its disks. */
const others = ['disk.config', 'console.log']

/**
 * What travels: the disks that are named (as they were prepared for it, where they had to be), and whatever else the
 * guest needs and nobody can make anew.
 * @param directory of the instance
 * @param isFar to another host, which has nothing of what libvirt keeps of the guest
 */
export function travelling(directory: string, disks: string[], isFar: boolean): Travelling[] {
  const prepared = new Set(ownNamesIn(`${directory}/send`))
  const state = isFar ? ['nvram.fd', ...(ownNamesIn(`${directory}/tpm`) ?? []).map((name) => `tpm/${name}`)] : []
  const found = [...disks, ...others, ...state].map((name) => ({
    name,
    path: prepared.has(name) ? `send/${name}` : name,
  }))
  return found.flatMap(({ name, path }) => {
    const file = fileAt(`${directory}/${path}`)
    return file ? [{ name, path, size: file.allocated }] : []
  })
}
