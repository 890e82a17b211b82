// Compares expressions of tasks (cel-eval, our library) with npm's @marcbachmann/cel-js over generated cases.
//   node cel.mjs CEL_EVAL N SEED     lines: ok NAME / not ok NAME
// A case is an expression over `inputs`. Half of them are well typed, half are put together regardless of types.
// Both must come to the same value, or both to an error; messages are nobody's business. Where the format chose
// otherwise than CEL, `choices` says so, and why: a difference that none of them covers fails.
import { createRequire } from 'node:module';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [celEval, nText, seedText] = process.argv.slice(2);
const require = createRequire(join(process.env.COX_INTEROP_MODULES, 'x.js'));
const { Environment } = await import(pathToFileURL(require.resolve('@marcbachmann/cel-js')));

// ---- numbers that repeat: mulberry32 (Tommy Ettinger, public domain)
let state = Number(seedText) >>> 0;
function below(n) {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return ((t ^ (t >>> 14)) >>> 0) % n;
}
const pick = (list) => list[below(list.length)];

// ---- values: a bigint is an int, a number a double
const inputs = {
  i: 7n, j: -3n, zero: 0n, big: 9223372036854775807n, least: -9223372036854775808n,
  d: 2.5, e: -0.125, one: 1.0, huge: 1e300,
  s: 'abc', t: 'a"b\\c', empty: '', uni: 'grün ✓ 𝄞', num: '12',
  yes: true, no: false, nul: null,
  l: [1n, 2n, 3n], m: ['a', 'abc', ''], mixed: [1n, 'a', null, true, 2.5, [1n], { k: 1n }], none: [],
  o: { k: 1n, s: 'x', deep: { l: [10n, 20n], n: null } }, bare: {},
};
const typeOf = (v) =>
  v === null ? 'null' : typeof v === 'bigint' ? 'int' : typeof v === 'number' ? 'double'
    : typeof v === 'string' ? 'string' : typeof v === 'boolean' ? 'bool' : Array.isArray(v) ? 'list' : 'object';
const named = (type) => Object.keys(inputs).filter((k) => typeOf(inputs[k]) === type).map((k) => `inputs.${k}`);

// JSON with integers and doubles told apart, and keys in order.
function text(v) {
  switch (typeOf(v)) {
    case 'int': return v.toString();
    case 'double': {
      if (!Number.isFinite(v)) return `not JSON: ${v}`;
      if (Object.is(v, -0)) return '0.0';
      const s = String(v);
      return /[.e]/.test(s) ? s : `${s}.0`;
    }
    case 'list': return `[${v.map(text).join(',')}]`;
    case 'object': {
      const entries = v instanceof Map ? [...v] : Object.entries(v);
      return `{${entries.map(([k, x]) => `${JSON.stringify(k)}:${text(x)}`).join(',')}}`;
    }
    default: return JSON.stringify(v);
  }
}

// Our answer as values, so that 1e300 and 1E+300 are the same.
function parse(json) {
  let at = 0;
  const value = () => {
    const rest = json.slice(at);
    let m;
    if ((m = /^(null|true|false)/.exec(rest))) return (at += m[0].length, JSON.parse(m[0]));
    if ((m = /^"(?:[^"\\]|\\.)*"/.exec(rest))) return (at += m[0].length, JSON.parse(m[0]));
    if ((m = /^-?\d+(\.\d+)?([eE][-+]?\d+)?/.exec(rest))) {
      at += m[0].length;
      return m[1] || m[2] ? Number(m[0]) : BigInt(m[0]);
    }
    const list = json[at++] === '[', out = list ? [] : {};
    while (json[at] !== ']' && json[at] !== '}') {
      if (json[at] === ',') at++;
      if (list) { out.push(value()); continue; }
      const key = value();
      at++;
      out[key] = value();
    }
    at++;
    return out;
  };
  return value();
}

// ---- the generator
const literals = {
  int: () => String(pick([0, 1, 2, 7, 10, 1000, '9223372036854775807', '0x1f'])),
  double: () => pick(['0.0', '1.5', '2.0', '1e3', '0.1']),
  string: () => pick(['"a"', "'abc'", '""', 'r"a\\b"', '"\\u00fc"', '"a\\n"', '"✓"']),
  bool: () => pick(['true', 'false']),
  list: () => pick(['[]', '[1, 2]', '[7]', '[1 + 1, size("ab")]']),
};
const types = ['int', 'double', 'string', 'bool', 'list'];

function typed(type, depth) {
  if (depth <= 0 || below(6) === 0) {
    const names = named(type);
    return below(2) && names.length ? pick(names) : literals[type]();
  }
  const go = (t) => typed(t, depth - 1 - below(2));
  const binary = (ops, t) => `(${go(t)} ${pick(ops)} ${go(t)})`;
  if (below(8) === 0) return `(${go('bool')} ? ${go(type)} : ${go(type)})`;
  switch (type) {
    case 'int':
      return pick([() => binary(['+', '-', '*', '/', '%'], 'int'), () => `-${go('int')}`, () => `size(${go('string')})`,
        () => `size(${go('list')})`, () => `${go('string')}.size()`, () => `inputs.l[${go('int')}]`,
        () => 'inputs.o.deep.l[1]', () => 'inputs["o"]["k"]'])();
    case 'double':
      return pick([() => binary(['+', '-', '*', '/'], 'double'), () => `-${go('double')}`])();
    case 'string':
      return pick([() => binary(['+'], 'string'), () => `inputs.m[${go('int')}]`, () => 'inputs.o.s'])();
    case 'list':
      return pick([() => binary(['+'], 'list'), () => 'inputs.o.deep.l', () => 'inputs.mixed[5]'])();
    default:
      return pick([() => binary(['&&', '||'], 'bool'), () => `!${go('bool')}`,
        () => binary(['==', '!=', '<', '<=', '>', '>='], pick(['int', 'double', 'string'])),
        () => binary(['==', '!='], pick(types)), () => `(${go('int')} in inputs.l)`, () => `(${go('string')} in inputs.m)`,
        () => `(${go('string')} in inputs.o)`, () => `${go('string')}.${pick(['startsWith', 'endsWith', 'contains'])}(${go('string')})`,
        () => `${go('string')}.matches(${pick(['"^a"', '"[a-c]+$"', '"b|x"', "r'\\d+'", '"(ab)*c?"', '"."', '"ü"'])})`,
        () => `has(inputs.o.${pick(['k', 'gone', 'deep'])})`, () => `has(inputs.o.deep.${pick(['l', 'gone'])})`])();
  }
}

// Leaves are inputs, whose types neither side knows before it evaluates.
function untyped(depth) {
  if (depth <= 0) return `inputs.${pick(Object.keys(inputs))}`;
  const go = () => untyped(depth - 1 - below(2));
  return pick([
    () => `(${go()} ${pick(['+', '-', '*', '/', '%', '==', '!=', '<', '<=', '>', '>=', '&&', '||'])} ${go()})`,
    () => `(${go()} in ${go()})`, () => `!${go()}`, () => `-${go()}`, () => `size(${go()})`,
    () => `(${go()} ? ${go()} : ${go()})`, () => `${go()}[${go()}]`, () => `${go()}.${pick(['k', 'deep', 'gone', 'l'])}`,
    () => `${go()}.${pick(['startsWith', 'endsWith', 'contains'])}(${go()})`,
    () => `[${go()}, ${go()}]`, () => `has(inputs.${pick(['o', 'bare', 'nul'])}.${pick(['k', 'gone'])})`,
  ])();
}

// ---- both sides
const env = new Environment({ unlistedVariablesAreDyn: true, homogeneousAggregateLiterals: false });
env.registerVariable('inputs', 'dyn');

function theirs(expr) {
  try {
    return { value: text(env.evaluate(expr, { inputs })) };
  } catch (e) {
    return { error: e.message.split('\n')[0] };
  }
}

function ours(exprs) {
  const lines = exprs.map((expr) => `{"expr":${JSON.stringify(expr)},"inputs":${text(inputs)}}`).join('\n') + '\n';
  const out = execFileSync(celEval, { input: lines, maxBuffer: 1 << 28 }).toString().trimEnd().split('\n');
  return out.map((line) => {
    const [, what, rest] = /^(\w+) (.*)$/.exec(line);
    return what === 'value' ? { value: text(parse(rest)) } : { error: `${what} ${rest}` };
  });
}

// Every `X in object` where X is no string as cel-js has it: false, which may also settle what stands beside it.
function withoutStrangeKeys(expr) {
  const groups = [], open = [];
  for (let i = 0; i < expr.length; i++) {
    if (expr[i] === '(') open.push(i);
    else if (expr[i] === ')') groups.push(expr.slice(open.pop(), i + 1));
  }
  const strange = groups.filter((g) => g.includes(' in ') && /`in` does not take \w+ and object/.test(ours([g])[0].error ?? ''));
  return strange.length ? withoutStrangeKeys(expr.replaceAll(strange[0], 'false')) : expr;
}

// ---- differences that are meant
const choices = [
  {
    name: 'paths through null are null',
    why: 'a skipped step has output null, and what refers to it goes on (rule 6)',
    covers: (expr, a, b) => 'value' in a && /No such key|No such overload|no such overload|Cannot|null/i.test(b.error ?? '')
      && /inputs\.(nul|mixed|o\b)/.test(expr),
  },
  {
    name: 'no infinities',
    why: 'values are JSON, which has none: a result that is not finite is an error where it arises',
    covers: (expr, a, b) => /division by zero|not a finite number/.test(a.error ?? '') && 'value' in b
      && /inputs\.(d|e|one|huge)\b|\d\.\d|\de\d/.test(expr),
  },
  {
    name: 'has() of what has no fields is an error',
    why: 'as the specification of CEL says; cel-js answers false',
    covers: (expr, a, b) => /has no fields/.test(a.error ?? '') && 'value' in b && expr.includes('has('),
  },
  {
    name: 'keys are strings',
    why: 'objects are JSON objects: another key is a mistake and not an absence',
    covers: (expr, a, b) => {
      const plain = withoutStrangeKeys(expr);
      return 'error' in a && 'value' in b && plain !== expr && same(ours([plain])[0], b);
    },
  },
  {
    name: 'negation and division overflow',
    why: 'as the specification of CEL says; cel-js goes on with an integer of more than 64 bits',
    // behind && and || the error that is told may be the other operand's
    covers: (expr, a, b) => (/integer overflow/.test(a.error ?? '') || ('error' in a && /&&|\|\|/.test(expr)))
      && 'value' in b && /inputs\.least|9223/.test(expr) && /-[(i1]/.test(expr),
  },
  {
    name: 'types are checked when values are there',
    why: 'outputs have no declared types, so an operand that is never reached is never wrong',
    covers: (expr, a, b) => 'value' in a && 'error' in b && !env.check(expr).valid,
  },
  {
    name: 'an index is an int',
    why: 'as the specification of CEL says of its operator; cel-js takes a double that is whole',
    covers: (expr, a, b) => /has no element \[double\]/.test(a.error ?? '') && 'value' in b,
  },
];

// ---- the comparison
const same = (a, b) => ('error' in a && 'error' in b) || ('value' in a && a.value === b.value);

function explain(expr, a, b) {
  return choices.find((c) => c.covers(expr, a, b));
}

function compare(name, exprs) {
  const mine = ours(exprs), used = new Map();
  let values = 0, errors = 0;
  const bad = [];
  exprs.forEach((expr, i) => {
    const other = theirs(expr);
    if (same(mine[i], other)) {
      if ('value' in mine[i]) values++;
      else errors++;
      return;
    }
    const choice = explain(expr, mine[i], other);
    if (choice) used.set(choice.name, (used.get(choice.name) ?? 0) + 1);
    else bad.push(`${expr}\n    ours:   ${JSON.stringify(mine[i])}\n    theirs: ${JSON.stringify(other)}`);
  });
  for (const b of bad.slice(0, 20)) console.log(`    ${b}`);
  console.log(`    ${name}: ${values} equal values, ${errors} errors on both sides, differences by choice: ${
    JSON.stringify(Object.fromEntries(used))}`);
  console.log(`${bad.length ? 'not ok' : 'ok'} ${name} agree with CEL (${exprs.length} cases, seed ${seedText})`);
  return { bad: bad.length, values, errors };
}

const n = Number(nText);
const many = (make) => Array.from({ length: n }, make);
const a = compare('well-typed expressions', many(() => typed(pick(types), 1 + below(4))));
const b = compare('expressions of any types', ['has(inputs.s.k)', '(inputs.num.deep && ([inputs.d, inputs.l] in inputs.o))', ...many(() => untyped(1 + below(3)))]);

// What is compared is not always the same: each side has to have come to values and to errors.
const mixed = a.values > n / 4 && a.errors > 0 && b.values > n / 20 && b.errors > n / 4;
console.log(`${mixed ? 'ok' : 'not ok'} the cases come to values and to errors`);
// And a wrong answer is seen: these are wrong on purpose.
const wrong = [['1 + 1', { value: '3' }], ['inputs.i / 2', { value: '3.5' }], ['inputs.s', { error: 'x' }],
  ['inputs.s + 1', { value: '"abc1"' }]];
const seen = wrong.every(([expr, answer]) => !same(answer, theirs(expr)) && !explain(expr, answer, theirs(expr)));
console.log(`${seen ? 'ok' : 'not ok'} wrong answers are found`);
process.exitCode = a.bad || b.bad || !mixed || !seen ? 1 : 0;
