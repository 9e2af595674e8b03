import { useEffect, useMemo, useState } from 'preact/hooks';
import type { ConnectionView } from '../control';
import { connectionsAt, openerOf, secondsLeft } from '../replay';
import type { Connection, Run } from '../run';
import type { Store } from '../state';
import { useWords } from '../use';

interface Props {
  store: Store;
  run: Run;
  at: number;
}

/** The table right after the chosen packet, and the connection behind it. */
export function Connections({ store, run, at }: Props) {
  const words = useWords();
  const { columns } = words;
  const table = useMemo(() => connectionsAt(run, at), [run, at]);
  const packet = run.packets[at];
  const now = packet?.time_us ?? 0;
  const chosen = table.find((one) => one.number === packet?.connection);
  if (table.length === 0) return <p class="hint">{words.noConnections}</p>;
  return (
    <>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keys */}
      <section class="scroll" tabIndex={0} aria-label={words.views.connections}>
        <table class="connections">
          <thead>
            <tr>
              <th>{columns.number}</th>
              <th>{columns.protocol}</th>
              <th>{columns.state}</th>
              <th>{columns.original}</th>
              <th>{columns.left}</th>
              <th>{columns.status}</th>
            </tr>
          </thead>
          <tbody>
            {table.map((connection) => (
              <tr key={connection.number} aria-current={connection === chosen ? 'true' : undefined}>
                <td>{connection.number}</td>
                <td>{connection.protocol}</td>
                <td>{connection.state ?? ''}</td>
                <td class="tuple">
                  {ends(connection.original)}
                  <small>↩ {ends(connection.reply)}</small>
                </td>
                <td class="left">{duration(secondsLeft(connection, now))}</td>
                <td class="status">{flags(connection)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {chosen && <Chosen store={store} run={run} connection={chosen} />}
    </>
  );
}

/** `192.0.2.104:40000 → 192.0.2.77:22` of `src=… dst=… sport=… dport=…`. */
export function ends(tuple: string): string {
  const parts = Object.fromEntries(tuple.split(' ').map((part) => part.split('=') as [string, string]));
  const { src = '', dst = '', sport, dport, ...others } = parts;
  const end = (address: string, port: string | undefined) =>
    port === undefined ? address : `${address.includes(':') ? `[${address}]` : address}:${port}`;
  const rest = Object.entries(others).map(([key, value]) => ` ${key}=${value}`);
  return `${end(src, sport)} → ${end(dst, dport)}${rest.join('')}`;
}

/** `4 d 23:59:59`, `1:59`, `29 s`. */
export function duration(seconds: number): string {
  const whole = Math.floor(seconds);
  if (whole < 120) return `${whole} s`;
  const two = (value: number) => String(Math.floor(value)).padStart(2, '0');
  const [days, hours] = [Math.floor(whole / 86_400), Math.floor((whole / 3600) % 24)];
  const clock = `${hours > 0 || days > 0 ? `${two(hours)}:` : ''}${two((whole / 60) % 60)}:${two(whole % 60)}`;
  return days > 0 ? `${days} d ${clock}` : clock;
}

function flags({ status, helper, mark }: Connection): string {
  const told = status.filter((word) => !['CONFIRMED', 'SRC_NAT_DONE', 'DST_NAT_DONE'].includes(word));
  if (!status.includes('SEEN_REPLY')) told.unshift('UNREPLIED');
  if (helper) told.push(`helper=${helper}`);
  if (mark) told.push(`mark=${mark}`);
  return told.join(' ');
}

const MACHINE = [
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
];

/** What a running router knows of a connection beside its line in the table. */
function useLive(store: Store, { id, state }: Connection): ConnectionView | null {
  const [live, setLive] = useState<ConnectionView | null>(null);
  useEffect(() => {
    setLive(null);
    if (id === undefined) return;
    let isOvertaken = false;
    store.connection(id).then(
      (found) => {
        if (!isOvertaken) setLive(found);
      },
      // It is over, or the router is gone, which is said elsewhere.
      () => {},
    );
    return () => {
      isOvertaken = true;
    };
  }, [store, id, state]);
  return live;
}

function Chosen({ store, run, connection }: { store: Store; run: Run; connection: Connection }) {
  const words = useWords();
  const opener = openerOf(run, connection.number);
  const rule = opener === undefined ? null : run.packets[opener]?.rule;
  const live = useLive(store, connection);
  const windows = connection.windows ?? live?.windows;
  return (
    <section class="chosen">
      <h3>
        {words.connection} #{connection.number}
      </h3>
      {opener !== undefined && (
        <p>
          {words.openedBy}{' '}
          <button type="button" class="link-button" onClick={() => void store.choosePacket(opener)}>
            {opener + 1}
          </button>
          {rule && (
            <>
              , {words.letInBy} <code>{rule}</code>
            </>
          )}
        </p>
      )}
      {connection.protocol === 'tcp' && (
        <ol class="machine" aria-label={words.machine}>
          {MACHINE.map((state) => (
            <li key={state} aria-current={state === connection.state ? 'step' : undefined}>
              {state}
            </li>
          ))}
        </ol>
      )}
      {live && live.let_in !== 'not_known' && live.let_in !== 'other_rules' && opener === undefined && (
        <p>
          {words.letInRule} <code>{live.let_in.rule.name}</code>
        </p>
      )}
      {windows && (
        <section
          class="scroll"
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reached by keys
          tabIndex={0}
          aria-label={words.windows}
        >
          <table class="windows">
            <thead>
              <tr>
                <th>{words.side}</th>
                <th>end</th>
                <th>max_end</th>
                <th>max_win</th>
                <th>wscale</th>
              </tr>
            </thead>
            <tbody>
              {windows.map((side, at) => (
                <tr key={at === 0 ? 'opener' : 'responder'}>
                  <th scope="row">{at === 0 ? words.opener : words.responder}</th>
                  <td>{side.end}</td>
                  <td>{side.max_end}</td>
                  <td>{side.max_win}</td>
                  <td>{side.wscale ?? '–'}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </section>
      )}
    </section>
  );
}
