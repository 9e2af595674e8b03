use super::*;
use std::io;

const STATEFUL: &str =
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n";

/// Files that stand in memory alone.
#[derive(Default)]
struct Files(RefCell<BTreeMap<PathBuf, Vec<u8>>>);

impl Files {
    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        self.0.borrow_mut().insert(path.into(), text.as_ref().to_vec());
    }

    fn read(&self, path: &Path, most: usize) -> io::Result<Vec<u8>> {
        let files = self.0.borrow();
        let bytes = files.get(path).ok_or(io::ErrorKind::NotFound)?;
        assert!(bytes.len() <= most);
        Ok(bytes.clone())
    }

    fn reload(&self, source: &mut Source, router: &Router) -> anyhow::Result<()> {
        source.reload(router, &|path, most| self.read(path, most))
    }

    fn open(&self, path: &str) -> (Source, Router) {
        let source = Source::open_with(Path::new(path), &|path, most| self.read(path, most)).unwrap();
        let router = Router::new(source.config()).map_err(|e| e[0].to_string()).unwrap();
        (source, router)
    }
}

/// All that decides.
fn state(router: &Router) -> (String, Vec<(&'static str, u64)>) {
    let rules = router.rules();
    let rules = rules.all().map(|rules| rules.render(false)).collect();
    (rules, router.conntrack().sysctls().list().collect())
}

/// Offers `next`, cut at each of `ends`, to a router that runs `before`: it is as it was, or as `next` wants it.
fn cut(before: &str, next: &str, ends: impl Iterator<Item = usize>) {
    let files = Files::default();
    files.write("router.yaml", next);
    let wanted = state(&files.open("router.yaml").1);
    files.write("router.yaml", before);
    let (mut source, router) = files.open("router.yaml");
    let old = state(&router);
    for end in ends.chain([next.len()]) {
        files.write("router.yaml", &next.as_bytes()[..end]);
        let result = files.reload(&mut source, &router);
        let now = state(&router);
        assert!(now == old || (result.is_ok() && now == wanted), "cut at {end}: {result:?}");
        assert!(result.is_ok() || end < next.len(), "the whole file is whole: {result:?}");
        if result.is_ok() && next != before {
            files.write("router.yaml", before);
            files.reload(&mut source, &router).unwrap();
            assert!(state(&router) == old);
        }
    }
}

/// Where a lab is cut: everywhere in its router part and a little behind, then here and there. Of a long one, not everywhere.
fn cuts(lab: &str) -> impl Iterator<Item = usize> {
    let router = lab.find("\nhosts:").unwrap() + 10;
    let step = if router > 3000 { 61 } else { 1 };
    let lines = lab.match_indices('\n').map(|(at, _)| at + 1).filter(|at| at % step < 5).collect::<Vec<_>>();
    (0..router).step_by(step).chain(lines).chain((router..lab.len()).step_by(211))
}

/// Every lab's file, whole.
fn labs() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut labs: Vec<_> = std::fs::read_dir(folder).unwrap().map(|lab| lab.unwrap().path()).collect();
    labs.sort();
    labs.into_iter().map(|lab| std::fs::read_to_string(lab.join("lab.yaml")).unwrap()).collect()
}

#[test]
fn a_lab_cut_anywhere_leaves_the_old_rules_or_means_the_same() {
    let labs = labs();
    assert!(labs.len() >= 15);
    for lab in labs {
        cut(&lab, &lab, cuts(&lab));
    }
}

#[test]
fn a_changed_lab_cut_anywhere_leaves_the_old_rules_or_is_whole() {
    let lab = labs().into_iter().find(|lab| lab.contains("\nname: article\n")).unwrap();
    let mangle = "*mangle\n    -A FORWARD -p udp -j MARK --set-mark 7\n    COMMIT\n";
    let before = lab.replacen("*filter\n", &format!("{mangle}    *filter\n"), 1);
    let behind = lab.replacen("COMMIT\n", &format!("COMMIT\n    {mangle}"), 1);
    for changed in [before, behind] {
        cut(&lab, &changed, cuts(&changed));
        cut(&changed, &lab, cuts(&lab));
    }
}

#[test]
fn a_second_table_that_was_cut_off_is_missed() {
    let two = format!("{STATEFUL}*raw\n-A PREROUTING -s 192.0.2.9/32 -j DROP\nCOMMIT\n");
    let file = |rules: &str| {
        let rules = rules.replace('\n', "\n  ");
        format!("ports: {{ left: {{}}, right: {{}} }}\nrules: |\n  {rules}\n")
    };
    cut(&file(&two), &file(&two), 0..file(&two).len());
    // Tables that change packets only are missed where they were there before.
    let two = format!("{STATEFUL}*mangle\n-A FORWARD -j MARK --set-mark 7\nCOMMIT\n");
    cut(&file(&two), &file(&two), 0..file(&two).len());
}

#[test]
fn a_rules_file_cut_anywhere_leaves_the_old_rules() {
    let files = Files::default();
    files.write("fw/router.yaml", "ports: { left: {}, right: {} }\nrules_file: fw.rules\n");
    files.write("fw/fw.rules", STATEFUL);
    let (mut source, router) = files.open("fw/router.yaml");
    let old = state(&router);
    for end in 0..STATEFUL.len() - 1 {
        files.write("fw/fw.rules", &STATEFUL[..end]);
        let result = files.reload(&mut source, &router);
        assert!(result.is_err(), "cut at {end}");
        assert!(state(&router) == old);
    }
    for text in ["", "# a firewall\n", "*mangle\nCOMMIT\n", "*filter\nCOMMIT\n", "\0\0\0\0"] {
        files.write("fw/fw.rules", text);
        let result = files.reload(&mut source, &router);
        assert!(result.is_err(), "{text:?}");
        assert!(state(&router) == old, "{text:?}");
    }
    files.write("fw/fw.rules", STATEFUL.trim_end());
    files.reload(&mut source, &router).unwrap();
}

#[test]
fn what_a_reload_refuses_is_said_with_its_reason() {
    let files = Files::default();
    let file = |more: &str| format!("ports: {{ left: {{}}, right: {{}} }}\nrules_file: fw.rules\n{more}");
    files.write("router.yaml", file(""));
    files.write("fw.rules", STATEFUL);
    let (mut source, router) = files.open("router.yaml");
    let mut refusal = |more: &str| {
        files.write("router.yaml", file(more));
        files.reload(&mut source, &router).unwrap_err().to_string()
    };
    assert_eq!(
        refusal("non_ip: pass\n"),
        "router.yaml is refused\n  `non_ip` differs from what runs\n    hint: only a restart changes that"
    );
    assert_eq!(
        refusal("busy_poll: always\n"),
        "router.yaml is refused\n  `device` or `busy_poll` differs from what runs\n    hint: only a restart changes that"
    );
    files.write("router.yaml", "ports: { left: {}, right: {} }\nrules_file: fw.rules\n");
    files.write("fw.rules", "*filter\n:FORWARD DROP [0:0]\n");
    let error = files.reload(&mut source, &router).unwrap_err().to_string();
    assert!(error.contains("`COMMIT` is missing for table `filter`"), "{error}");
    files.write("fw.rules", "");
    let error = files.reload(&mut source, &router).unwrap_err().to_string();
    assert!(error.contains("`fw.rules` has no rules"), "{error}");
}

#[test]
fn none_opens_and_nothing_else_does() {
    let files = Files::default();
    files.write("router.yaml", "ports: { left: {}, right: {} }\nrules_file: fw.rules\n");
    files.write("fw.rules", STATEFUL);
    let (mut source, router) = files.open("router.yaml");
    for file in ["ports: { left: {}, right: {} }\n", "ports: { left: {}, right: {} }\nrules:\n"] {
        files.write("router.yaml", file);
        files.reload(&mut source, &router).unwrap_err();
    }
    files.write("router.yaml", "ports: { left: {}, right: {} }\nrules: none\n");
    files.reload(&mut source, &router).unwrap();
    assert!(router.rules().for_family(Family::Ipv4).is_none());
}

#[test]
fn a_family_without_rules_is_said_aloud() {
    let said = |yaml: &str| {
        let files = Files::default();
        files.write("router.yaml", format!("ports: {{ left: {{}} }}\n{yaml}"));
        let (source, router) = files.open("router.yaml");
        missing_rules(&router.rules(), &source.running.config).join("\n")
    };
    assert!(said("").starts_with("warning: IPv4 has no rules: everything passes"));
    assert!(said("").contains("\nwarning: IPv6 has no rules: nothing passes"));
    assert!(said("rules: |\n  *filter\n  COMMIT\n").starts_with("warning: IPv4 has no rules"));
    assert_eq!(
        said("rules: none\nrules6: none\n"),
        "IPv4 has no rules, as `rules: none` says: everything passes\n\
         IPv6 has no rules, as `rules6: none` says: nothing passes"
    );
}
