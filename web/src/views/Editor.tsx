import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
import { yaml } from '@codemirror/lang-yaml';
import { bracketMatching, HighlightStyle, StreamLanguage, syntaxHighlighting } from '@codemirror/language';
import { type Diagnostic, lintGutter, setDiagnostics } from '@codemirror/lint';
import { Annotation, type Extension, RangeSet, StateEffect, StateField } from '@codemirror/state';
import { Decoration, EditorView, GutterMarker, gutter, keymap, lineNumbers } from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { useEffect, useRef } from 'preact/hooks';
import type { Problem } from '../protocol';
import css from './editor.css?inline';

const sheet = new CSSStyleSheet();
sheet.replaceSync(css);

export interface Mark {
  name: string;
  line: number;
  count: number;
}

interface Props {
  label: string;
  isYaml: boolean;
  text: string;
  problems: Problem[];
  marks: Mark[];
  /** The line of the rule that decided on the chosen packet. */
  chosen: number | null;
  change: (text: string) => void;
  apply: () => void;
}

/** A text that was put in from outside, and not typed. */
const fromOutside = Annotation.define<true>();

export function Editor({ label, isYaml, text, problems, marks, chosen, change, apply }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  // The editor is made once; what it calls is always of the last drawing.
  const calls = useRef({ change, apply });
  calls.current = { change, apply };
  // What was typed and told, and has not come back as `text` yet: more may be typed before it does.
  const told = useRef<string[]>([]);

  // Made once for each text, which has a key.
  useEffect(() => {
    if (!place.current) return;
    const extensions = [
      lineNumbers(),
      history(),
      lintGutter(),
      counts,
      bracketMatching(),
      isYaml ? yaml() : iptables,
      syntaxHighlighting(colours),
      // Tab leaves the editor for who goes by keys, until Escape's opposite is asked for: see the help of CodeMirror.
      keymap.of([
        {
          key: 'Mod-Enter',
          run: () => {
            calls.current.apply();
            return true;
          },
        },
        ...defaultKeymap,
        ...historyKeymap,
        ...(isYaml ? [indentWithTab] : []),
      ]),
      EditorView.updateListener.of((update) => {
        if (!update.docChanged || update.transactions.some((one) => one.annotation(fromOutside))) return;
        const typed = update.state.doc.toString();
        told.current.push(typed);
        calls.current.change(typed);
      }),
      EditorView.contentAttributes.of({ 'aria-label': label, spellcheck: 'false' }),
    ];
    // In a root of its own, where CodeMirror's styles are sheets: a style element is forbidden by the page's policy.
    const root = place.current.shadowRoot ?? place.current.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [sheet];
    const made = new EditorView({ doc: text, extensions, parent: root, root });
    view.current = made;
    return () => made.destroy();
  }, []);

  useEffect(() => {
    const editor = view.current;
    if (!editor) return;
    const isSame = editor.state.doc.toString() === text;
    // What was typed a moment ago must not undo what was typed since.
    if (!isSame && told.current.includes(text)) return;
    told.current = [];
    if (isSame) return;
    const changes = { from: 0, to: editor.state.doc.length, insert: text };
    editor.dispatch({ changes, annotations: fromOutside.of(true) });
  }, [text]);

  useEffect(() => {
    const editor = view.current;
    if (!editor) return;
    const diagnostics = problems.flatMap((problem) => diagnosed(editor, problem));
    editor.dispatch(setDiagnostics(editor.state, diagnostics));
  }, [problems]);

  useEffect(() => {
    view.current?.dispatch({ effects: setCounts.of({ marks, chosen }) });
  }, [marks, chosen]);

  return <div class="editor" ref={place} />;
}

/** A problem from its column to the end of its line. */
function diagnosed(editor: EditorView, { line, column, message, hint, is_warning }: Problem): Diagnostic[] {
  const { doc } = editor.state;
  if (line < 1 || line > doc.lines) return [];
  const found = doc.line(line);
  const from = Math.min(found.from + Math.max(0, column - 1), found.to);
  const severity = is_warning ? 'warning' : 'error';
  return [{ from, to: found.to, severity, message: hint ? `${message}\n${hint}` : message }];
}

class Count extends GutterMarker {
  constructor(private count: number) {
    super();
  }

  override eq(other: Count) {
    return other.count === this.count;
  }

  override toDOM() {
    return document.createTextNode(String(this.count));
  }
}

interface Counted {
  marks: Mark[];
  chosen: number | null;
}

const setCounts = StateEffect.define<Counted>();

const counted = StateField.define<Counted>({
  create: () => ({ marks: [], chosen: null }),
  update: (value, transaction) =>
    transaction.effects.reduce((known, effect) => (effect.is(setCounts) ? effect.value : known), value),
});

const chosenLine = Decoration.line({ class: 'chosen-line' });

const counts: Extension = [
  counted,
  gutter({
    class: 'counts',
    markers: ({ state }) => {
      const known = state.field(counted).marks.filter(({ line }) => line <= state.doc.lines);
      const ranges = known.map(({ line, count }) => new Count(count).range(state.doc.line(line).from));
      return RangeSet.of(ranges, true);
    },
    lineMarkerChange: (update) => update.transactions.some((one) => one.effects.some((e) => e.is(setCounts))),
  }),
  EditorView.decorations.compute([counted, 'doc'], (state) => {
    const { chosen } = state.field(counted);
    if (chosen === null || chosen > state.doc.lines) return Decoration.none;
    return Decoration.set(chosenLine.range(state.doc.line(chosen).from));
  }),
];

/** Just enough of iptables-save that the eye finds its way. */
const iptables = StreamLanguage.define<null>({
  startState: () => null,
  token(stream) {
    if (stream.sol() && stream.match(/^#.*/)) return 'comment';
    if (stream.sol() && stream.match(/^(\*\S+|:\S+|COMMIT\b)/)) return 'heading';
    if (stream.match(/^"([^"\\]|\\.)*"?/)) return 'string';
    if (stream.match(/^--?[a-zA-Z][\w-]*/)) return 'keyword';
    if (stream.match(/^(ACCEPT|DROP|REJECT|LOG|RETURN|SNAT|DNAT|MASQUERADE|NOTRACK|CT)\b/)) return 'atom';
    if (stream.match(/^(NEW|ESTABLISHED|RELATED|INVALID|UNTRACKED)\b/)) return 'typeName';
    if (!stream.match(/^\w+/)) stream.next();
    return null;
  },
});

const colours = HighlightStyle.define([
  { tag: tags.comment, class: 'code-comment' },
  { tag: tags.heading, class: 'code-heading' },
  { tag: [tags.keyword, tags.propertyName, tags.definition(tags.propertyName)], class: 'code-keyword' },
  { tag: tags.string, class: 'code-string' },
  { tag: [tags.atom, tags.bool], class: 'code-atom' },
  { tag: tags.typeName, class: 'code-type' },
]);
