// <stateway-lab>, for pages of a course: the playground in a frame, with the lab of a file that lies beside the page.
//
//   <script type="module" src="playground/stateway-lab.js"></script>
//   <stateway-lab src="my-lab/lab.yaml" files="my.rules" packet="3" view="way"></stateway-lab>
//   <stateway-lab lab="article"></stateway-lab>

import { toFragment, VIEWS } from './share';
import { NO_RULES, OWN } from './state';

const HEIGHT = '720px';
/** The playground lies beside this script. */
const HERE = import.meta.url;

class StatewayLab extends HTMLElement {
  static observedAttributes = ['src', 'files', 'lab', 'packet', 'view', 'height', 'title'];
  private frame: HTMLIFrameElement | undefined;
  /** Counts what was asked for: an answer that was overtaken is not shown. */
  private shows = 0;

  connectedCallback() {
    this.frame ??= document.createElement('iframe');
    this.frame.style.cssText = 'display: block; width: 100%; border: 0;';
    this.append(this.frame);
    void this.show();
  }

  attributeChangedCallback() {
    if (this.frame?.isConnected) void this.show();
  }

  private async show() {
    const { frame } = this;
    if (!frame) return;
    const show = ++this.shows;
    frame.style.height = this.getAttribute('height') ?? HEIGHT;
    frame.title = this.getAttribute('title') ?? 'stateway';
    try {
      const fragment = await this.fragment();
      if (show === this.shows) frame.src = new URL(`./${fragment}`, HERE).href;
    } catch (error) {
      this.dispatchEvent(new ErrorEvent('error', { message: String(error) }));
      if (show === this.shows) this.textContent = String(error);
    }
  }

  private async fragment(): Promise<string> {
    const src = this.getAttribute('src');
    const packet = Number.parseInt(this.getAttribute('packet') ?? '0', 10) - 1;
    const view = VIEWS.find((one) => one === this.getAttribute('view')) ?? 'packets';
    const lab = this.getAttribute('lab') ?? (src ? OWN : 'article');
    const files = src ? await this.files(src) : null;
    return toFragment({ lab, packet, view, files, rules: NO_RULES });
  }

  /** The lab file, and those that it names. */
  private async files(src: string) {
    const place = new URL(src, document.baseURI);
    const names = (this.getAttribute('files') ?? '').split(/\s+/).filter((name) => name !== '');
    const texts = [text(place), ...names.map((name) => text(new URL(name, place)))];
    const [own = '', ...others] = await Promise.all(texts);
    return Object.fromEntries([['lab.yaml', own], ...names.map((name, at) => [name, others[at] ?? ''])]);
  }
}

async function text(place: URL): Promise<string> {
  const answer = await fetch(place);
  if (!answer.ok) throw new Error(`${place}: ${answer.status} ${answer.statusText}`);
  return answer.text();
}

customElements.define('stateway-lab', StatewayLab);
