import type { Account, Packet, Value, WayStep } from '../protocol';
import { DELIVERED, FORWARDED, type Stage } from '../replay';
import type { Run } from '../run';
import type { Told } from '../source';
import { useWords } from '../use';
import { FateWord, StateWord } from './Words';

interface Props {
  run: Run;
  at: number;
  told: Told | null;
}

/** The chosen packet's whole way: the netfilter diagram, and every rule that looked. */
export function Way({ run, at, told }: Props) {
  const words = useWords();
  const packet = run.packets[at];
  if (!packet) return <p class="hint">{words.choose}</p>;
  return (
    <article class="way-view" aria-live="polite">
      <Verdict run={run} packet={packet} />
      {told && (
        <>
          <Diagram account={told.account} />
          <Steps told={told} />
        </>
      )}
      {packet.bytes && <Bytes packet={packet} />}
    </article>
  );
}

function Verdict({ run, packet }: { run: Run; packet: Packet }) {
  const words = useWords();
  const port = (at: number) => run.lab.ports[at]?.name ?? '';
  const why = words.why(packet.reason, packet.why);
  const by = packet.rule === 'policy' ? words.policy : packet.rule;
  return (
    <header class="verdict">
      <h2>
        <bdi>{packet.summary}</bdi>
      </h2>
      <p class="words">
        <StateWord state={packet.ctstate} />
        <FateWord fate={packet.fate} />
        {packet.connection !== null && (
          <span class="hint">
            {words.connection} #{packet.connection}
            {packet.direction ? ` (${packet.direction})` : ''}
          </span>
        )}
      </p>
      <dl class="facts">
        {by && (
          <div>
            <dt>{words.decidedBy}</dt>
            <dd>
              <code id="decided-by">{by}</code>
            </dd>
          </div>
        )}
        {why && (
          <div>
            <dt>{words.because}</dt>
            <dd>
              {why} <code>{packet.reason}</code>
            </dd>
          </div>
        )}
        <div>
          <dt>{words.cameIn}</dt>
          <dd>
            <bdi>{port(packet.in_port)}</bdi>
          </dd>
        </div>
        {packet.out_ports.length > 0 && (
          <div>
            <dt>{words.wentOut}</dt>
            <dd>
              <bdi>{packet.out_ports.map(port).join(', ')}</bdi>
            </dd>
          </div>
        )}
      </dl>
      {packet.answers.length > 0 && (
        <p>
          {words.answered}:{' '}
          {packet.answers.map((sent) => (
            <code key={sent.summary}>
              {sent.summary} → {port(sent.port)}
            </code>
          ))}
        </p>
      )}
    </header>
  );
}

/** Which stage a step belongs to. */
function stageOf(step: WayStep): Stage | null {
  switch (step.step) {
    case 'hook':
      return step;
    case 'conntrack':
      return { table: 'conntrack', chain: 'PREROUTING' };
    case 'routed':
    case 'local':
      return { table: 'routing', chain: '' };
    case 'confirmed':
      return { table: 'confirm', chain: '' };
    default:
      return null;
  }
}

const isSame = (stage: Stage, met: Stage) =>
  stage.table === met.table && (met.chain === '' || stage.chain === met.chain);

function Diagram({ account }: { account: Account }) {
  const met = account.steps.map(stageOf).filter((stage) => stage !== null);
  const isDelivered = account.steps.some(({ step }) => step === 'local');
  const stages = isDelivered ? DELIVERED : FORWARDED;
  const stopped = account.fate === 'dropped' || account.fate === 'rejected';
  const last = stages.findLastIndex((stage) => met.some((one) => isSame(stage, one)));
  return (
    <ol class="diagram" aria-label="netfilter">
      {hooks(stages).map((hook) => (
        <li key={hook.name}>
          <span class="hook">{hook.name}</span>
          <ol>
            {hook.stages.map(({ stage, at }) => {
              const isLit = met.some((one) => isSame(stage, one));
              const isEnd = stopped && at === last;
              return (
                <li key={stage.table} class={isEnd ? 'end' : isLit ? 'lit' : ''}>
                  {stage.table}
                  {isEnd ? ' ✕' : ''}
                </li>
              );
            })}
          </ol>
        </li>
      ))}
    </ol>
  );
}

/** The stages of each hook, under its name; the routing decision stands between them. */
function hooks(stages: Stage[]) {
  const groups: { name: string; stages: { stage: Stage; at: number }[] }[] = [];
  stages.forEach((stage, at) => {
    const last = groups.at(-1);
    if (last?.name === stage.chain) last.stages.push({ stage, at });
    else groups.push({ name: stage.chain, stages: [{ stage, at }] });
  });
  return groups;
}

/** Rules in a row that said no are put together where there are more than this. */
const FEW = 6;

type Part = { at: number; step: WayStep; value: Value | null };

function Steps({ told: { account, values } }: { told: Told }) {
  const words = useWords();
  const parts = account.steps.map((step, at) => ({ at, step, value: values[at] ?? null }));
  return (
    <ol class="steps">
      {folded(parts).map((row) =>
        Array.isArray(row) ? (
          <li key={row[0]?.at} class="folded">
            <details>
              <summary>{words.rulesLooked(row.length)}</summary>
              <ol class="steps">
                {row.map((part) => (
                  <StepRow key={part.at} {...part} />
                ))}
              </ol>
            </details>
          </li>
        ) : (
          <StepRow key={row.at} {...row} />
        ),
      )}
    </ol>
  );
}

function folded(parts: Part[]): (Part | Part[])[] {
  const rows: (Part | Part[])[] = [];
  let refusals: Part[] = [];
  const flush = () => {
    if (refusals.length > FEW) rows.push(refusals);
    else rows.push(...refusals);
    refusals = [];
  };
  for (const part of parts) {
    if (part.step.step === 'rule' && !part.step.matched) {
      refusals.push(part);
    } else {
      flush();
      rows.push(part);
    }
  }
  flush();
  return rows;
}

function StepRow({ step, value }: Part) {
  const words = useWords();
  const { details } = words;
  switch (step.step) {
    case 'hook':
      return (
        <li class="hook-row">
          {step.table} {step.chain}
        </li>
      );
    case 'rule':
      return <RuleRow step={step} value={value} />;
    case 'policy':
      return (
        <li class={`policy ${step.policy === 'DROP' ? 'no' : 'yes'}`}>
          <code>{step.rule}</code> {words.verdictIs} <b>{step.policy}</b>
        </li>
      );
    case 'conntrack':
      return (
        <li class="note">
          conntrack: <StateWord state={step.ctstate} /> {words.stateMeans[step.ctstate] ?? step.why}
          {step.reason ? ` (${step.reason}: ${words.why(step.reason, step.why)})` : ''}
        </li>
      );
    case 'routed':
      return (
        <li class="note">
          {details.route} <code>{step.out}</code>
          {step.next_hop ? `, ${details.nextHop} ${step.next_hop}` : ''}
        </li>
      );
    case 'local':
      return <li class="note">{details.local}</li>;
    case 'translated':
      return (
        <li class="note">
          nat: {step.side} <code>{step.from}</code> {details.becomes} <code>{step.to}</code>
          {step.rule ? ` (${step.rule})` : ''}: {words.told(step.why)}
        </li>
      );
    case 'confirmed':
      return <li class="note">conntrack: {details.confirmed}</li>;
    case 'expected':
      return (
        <li class="note">
          {details.helperExpects} <code>{step.connection}</code>
        </li>
      );
    case 'tolerated':
      return <li class="note">conntrack: {step.why}</li>;
    case 'unannounced':
      return (
        <li class="note">
          {step.helper} {details.helperSilent} {words.told(step.why)}
        </li>
      );
    case 'sent':
      return (
        <li class="note">
          {words.wentOut} <code>{step.port}</code>
        </li>
      );
    case 'answer':
      return (
        <li class="note">
          {words.answered}: <code>{step.packet}</code> → {step.port}
        </li>
      );
    case 'unanswered':
      return (
        <li class="note">
          <FateWord fate={step.fate} /> {step.reason}
        </li>
      );
  }
}

function RuleRow({ step, value }: { step: Extract<WayStep, { step: 'rule' }>; value: Value | null }) {
  const words = useWords();
  const { rule, text, matched, failed } = step;
  const at = failed ? text.indexOf(failed) : -1;
  return (
    <li class={`rule ${matched ? 'yes' : 'no'}`}>
      <span class="rule-head">
        <span class="name">{rule}</span>
        <span class="said">{matched ? `✓ ${words.matches}` : `✕ ${words.no}`}</span>
      </span>
      <code class="rule-text">
        {at < 0 || !failed ? (
          text
        ) : (
          <>
            {text.slice(0, at)}
            <mark>{failed}</mark>
            {text.slice(at + failed.length)}
          </>
        )}
      </code>
      {value && <span class="value">{words.has(value.what, value.said)}</span>}
      {!value && at < 0 && failed && <span class="value">{failed}</span>}
    </li>
  );
}

function Bytes({ packet }: { packet: Packet }) {
  const words = useWords();
  const rows = packet.bytes.match(/.{1,32}/g) ?? [];
  return (
    <details class="bytes">
      <summary>
        {words.bytes} ({packet.bytes.length / 2})
      </summary>
      {/* It may be wider than the page. */}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keys */}
      <pre tabIndex={0}>{rows.map(dumped).join('\n')}</pre>
    </details>
  );
}

/** A row as `hexdump -C` prints it. */
function dumped(row: string, at: number): string {
  const bytes = row.match(/../g) ?? [];
  const chars = bytes
    .map((byte) => Number.parseInt(byte, 16))
    .map((n) => (n > 31 && n < 127 ? String.fromCharCode(n) : '.'));
  return `${(at * 16).toString(16).padStart(4, '0')}  ${bytes.join(' ').padEnd(47)}  ${chars.join('')}`;
}
