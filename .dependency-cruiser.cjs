// The arrows of the house: scripts/cowhand → main → catalog → pipelines → moves → steps → lib; and one door to each outside thing.
// build/check-imports.ts plants an import against each of these rules, and sees that it is found.

/** A package, wherever node_modules lies. */
const npm = (...names) => `(^|node_modules/)(${names.join('|')})(/|$)`

/** Only `by` may import the package; build/ and test/ have their own ways. */
const door = (name, by) => ({
  name: `door-${name.replace(/^@.*\//, '')}`,
  comment: `Only ${by.source} imports ${name}, so that it can be replaced, and is used safely, in one place.`,
  severity: 'error',
  from: { path: '^(lib|scripts)/', pathNot: by.source },
  to: { path: npm(name) },
})

const never = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to })

/** Files that compute and touch nothing, so that a test of them is a table. */
const pure = '^(lib/job/|scripts/pipelines/)'

module.exports = {
  forbidden: [
    never(
      'lib-below-all',
      'lib/ is how things are done, and knows nothing of what uses it.',
      { path: '^lib/' },
      { path: '^(scripts|build|test)/' },
    ),
    never('nobody-calls-main', 'The executable is started, never imported.', {}, { path: '^scripts/cowhand\\.ts$' }),
    never(
      'main-by-catalog',
      'The dispatcher finds all that it can do in the catalog.',
      { path: '^scripts/(?!catalog\\.ts$)[^/]+\\.ts$' },
      { path: '^(scripts/(steps|pipelines|queries)/|build/|test/)' },
    ),
    never(
      'catalog-lists',
      'The catalog lists pipelines, steps and queries.',
      { path: '^scripts/catalog\\.ts$' },
      { path: '^(build|test)/' },
    ),
    never(
      'pipelines-on-steps',
      'A pipeline is made of steps, and of what several have in common.',
      { path: '^scripts/pipelines/' },
      { path: '^(scripts/(?!steps/|moves/)|build/|test/)' },
    ),
    never(
      'moves-on-steps',
      'What resize, migrate, confirm and revert have in common is made of steps, and knows none of them.',
      { path: '^scripts/moves/' },
      { path: '^(scripts/(?!steps/|moves/)|build/|test/)' },
    ),
    never(
      'steps-alone',
      'A step runs alone: it knows no other step and no pipeline.',
      { path: '^scripts/steps/' },
      { path: '^(scripts|build|test)/' },
    ),
    never(
      'queries-on-lib',
      'A query reads by lib, and asks the catalog what there is.',
      { path: '^scripts/queries/' },
      { path: '^(scripts/(?!catalog\\.ts$)|build/|test/)' },
    ),

    never(
      'zod-mini',
      'Every command loads its schemas: with all of zod it would start 2 ms later.',
      { path: '^(lib|scripts)/' },
      { path: '(^|node_modules/)zod/(?!(v4/)?(mini|core)/)|^zod$' },
    ),

    door('zx', /^lib\/host\/shell\.ts$/),
    door('yargs', /^lib\/cli\//),
    door('chalk', /^lib\/cli\//),
    door('lockfile', /^lib\/host\/locks\.ts$/),
    door('@xmldom/xmldom', /^lib\/host\/domain-xml\.ts$/),
    door('yaml', /^lib\/host\/yaml\.ts$/),

    never(
      'pure-touch-nothing',
      'Pure files compute: no files, programs or network.',
      { path: pure },
      { dependencyTypes: ['core'], pathNot: '^(node:)?(path|crypto|util|buffer)(/|$)' },
    ),
    never(
      'pure-on-pure',
      'Pure files know of effects by their types only.',
      { path: '^lib/job/' },
      { path: '^lib/(host|image|cli)/', dependencyTypesNot: ['type-only'] },
    ),
    never(
      'programs-by-lib',
      'Programs are started by lib/host, and unpackers by lib/image.',
      { path: '^(scripts/|lib/(?!host/|image/))' },
      { path: '^(node:)?child_process$' },
    ),

    never(
      'no-cycle',
      'What needs each other is one thing. (A type, or an import at run time, binds nobody.)',
      {},
      { circular: true, viaOnly: { dependencyTypesNot: ['type-only', 'dynamic-import'] } },
    ),
    never('no-orphan', 'A module that nothing uses is in the way.', { orphan: true, path: '^(lib|scripts)/' }, {}),
    never(
      'no-stranger',
      'What is imported is there, and is in package.json for those who run it.',
      { path: '^(lib|scripts)/' },
      { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown', 'unknown', 'undetermined'], pathNot: '@types/' },
    ),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^build/out/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: `${__dirname}/tsconfig.json` },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'] },
  },
}
