/** Who called us: lib never reads the process it runs in, the executable puts its environment here. */
export const caller: { environment: Record<string, string | undefined> } = { environment: {} }
