// The steps of the article as exercises: four ways to let 104 out and keep strangers from coming in, each better than the last. The
// learner says of each test's first packet what becomes of it.

import type { Language } from './App';

export interface Exercise {
  /** A lab that is built in. */
  lab: string;
  title: Record<Language, string>;
  /** What to think of before. */
  intro: Record<Language, string>;
  /** What is to be learnt, told at the end. */
  lesson: Record<Language, string>;
}

export const EXERCISES: Exercise[] = [
  {
    lab: 'open-ports',
    title: { en: '1. By ports', zh: '1. 按端口' },
    intro: {
      en: '104 asks servers at ports 22 and 80, so their answers come from these ports: the rules let in what comes from them. Who else gets in?',
      zh: '104 访问 22 和 80 端口上的服务，应答就来自这两个端口：规则放行来自这些端口的数据包。还有谁能进来？',
    },
    lesson: {
      en: 'A source port is whatever its sender writes. It tells nobody an answer from a question.',
      zh: '源端口由发送方随意填写，分不清应答和提问。',
    },
  },
  {
    lab: 'trusted-hosts-30',
    title: { en: '2. By addresses', zh: '2. 按地址' },
    intro: {
      en: 'Now there is a rule for every host that 104 trusts. What becomes of the host that nobody has written down?',
      zh: '现在 104 信任的每台主机都有一条规则。没有写进规则的主机会怎样？',
    },
    lesson: {
      en: 'A list grows with the world, and who is on it may ask as well as answer.',
      zh: '名单随世界增长，而名单上的主机既能应答，也能提问。',
    },
  },
  {
    lab: 'tcp-flags',
    title: { en: '3. By flags', zh: '3. 按标志位' },
    intro: {
      en: 'A TCP connection begins with a SYN: the rules refuse those from outside. What else is there beside a SYN?',
      zh: 'TCP 连接以 SYN 开始：规则拒绝来自外界的 SYN。除了 SYN 还有什么？',
    },
    lesson: {
      en: 'UDP and ICMP have no such flag, and a segment without SYN passes though nobody waits for it.',
      zh: 'UDP 和 ICMP 没有这样的标志；不带 SYN 的报文段，即使没有人在等，也会通过。',
    },
  },
  {
    lab: 'article',
    title: { en: '4. By state', zh: '4. 按状态' },
    intro: {
      en: 'Two rules that remember: what belongs to a connection passes, and only 104 may begin one.',
      zh: '两条有记忆的规则：属于某个连接的放行，只有 104 可以开始新连接。',
    },
    lesson: {
      en: 'What tells an answer from a question is memory: the router knows which connections it has seen.',
      zh: '能分清应答和提问的是记忆：路由器知道自己见过哪些连接。',
    },
  },
];
