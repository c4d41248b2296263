import { join } from 'node:path'
import { bootableImage, diskModules } from '../../build/demo-image.ts'

/**
 * An image whose guest proves its disks (pattern-guest/pattern tells how) on its serial console, and stays until its
 * power button is pressed. It needs 128 MiB of memory; the image has 48 MiB, and from 96 MiB on the root disk has areas
 * of the pattern where the image has nothing.
 * @returns path of a qcow2 file, kept until the recipe changes
 * @throws {Problem} TOOL_MISSING, TOOL_FAILED, FETCH_FAILED
 */
export const patternImage = async (): Promise<string> =>
  bootableImage({
    name: 'pattern-image',
    guest: join(import.meta.dirname, 'pattern-guest'),
    // The power button, and a source of random bytes, for which a new kernel waits long otherwise.
    modules: [...diskModules, 'button', 'evdev', 'virtio-rng'],
    spare: ['libcrc32c', 'xfs'],
  })
