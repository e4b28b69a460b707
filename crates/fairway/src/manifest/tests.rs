use std::fs;

use super::*;

fn ingress(name: &str, extra: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\nspec:\n  defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}\n  ingressClassName: nginx{extra}\n"
    )
}

fn open(folder: &Path) -> Manifests {
    Manifests::open(&[folder.to_owned()], Refused::Read).unwrap()
}

fn names(changes: &[Change]) -> Vec<String> {
    let name = |change: &Change| match change {
        Change::Upsert(object) => format!("+{}", object.key().name),
        Change::Remove(key) => format!("-{}", key.name),
    };
    changes.iter().map(name).collect()
}

fn order(manifests: &Manifests) -> Vec<String> {
    let mut objects: Vec<_> = manifests.objects().collect();
    objects.sort_by_key(|object| object.created());
    objects.iter().map(|object| object.key().name.to_string()).collect()
}

#[test]
fn folders_are_read_in_a_stable_order_and_hidden_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    for (file, name) in [("c.yml", "three"), ("a.yaml", "one"), ("b/x.yaml", "two"), (".h.yaml", "no"), ("t.txt", "no")]
    {
        fs::write(folder.path().join(file), ingress(name, "")).unwrap();
    }
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+one", "+two", "+three"]);
    assert_eq!(order(&manifests), ["one", "two", "three"]);
    assert_eq!(manifests.counts(), Counts { files: 3, objects: 3, ignored: 0 });
}

#[test]
fn only_what_changed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, ingress("a", "") + &ingress("b", "") + &ingress("c", "")).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    assert!(manifests.reload(None).is_empty());
    fs::write(&file, ingress("a", "") + &ingress("new", "") + &ingress("b", "x")).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["-c", "+new", "+b"]);
    assert_eq!(order(&manifests), ["a", "new", "b"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_content() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, ingress("a", "") + &ingress("b", "")).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    fs::write(&file, ingress("c", "") + "---\nspec: [\n").unwrap();
    assert!(manifests.reload(None).is_empty());
    let findings = manifests.findings();
    assert_eq!(findings.len(), 1);
    assert!(findings[0].place.as_ref().unwrap().line >= Some(10), "{findings:?}");
    assert!(findings[0].diagnostic.message.contains("last good content"), "{findings:?}");
    fs::write(&file, ingress("c", "")).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["-a", "-b", "+c"]);
    assert!(manifests.findings().is_empty());
}

#[test]
fn at_the_start_the_good_documents_of_a_broken_file_count() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), ingress("a", "") + "---\n\"\n").unwrap();
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+a"]);
    assert_eq!(manifests.findings().len(), 1);
}

#[test]
fn an_object_that_cannot_be_read_keeps_its_last_good_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    fs::write(&file, ingress("a", "") + &ingress("b", "")).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    fs::write(&file, ingress("a", "\n  rules: 5") + &ingress("b", "x")).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+b"]);
    let findings = manifests.findings();
    assert_eq!(findings[0].place.as_ref().unwrap().line, Some(9));
    assert_eq!(manifests.counts().objects, 2);
}

#[test]
fn of_an_object_that_stands_twice_the_last_one_counts() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.yaml"), ingress("a", "-first")).unwrap();
    fs::write(folder.path().join("b.yaml"), ingress("a", "-second")).unwrap();
    let mut manifests = open(folder.path());
    let changes = manifests.reload(None);
    let Change::Upsert(Object::Ingress(ingress)) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(ingress.read().spec.unwrap().ingress_class_name.as_deref(), Some("nginx-second"));
    let findings = manifests.findings();
    assert!(findings[0].place.as_ref().unwrap().file.ends_with("b.yaml"));
    assert!(findings[0].diagnostic.message.contains("a.yaml:2"), "{findings:?}");
}

#[test]
fn a_mounted_configmap_is_read_once_and_anew_when_its_link_moves() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, name) in [("..v1", "a"), ("..v2", "b")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("x.yaml"), ingress(name, "")).unwrap();
    }
    std::os::unix::fs::symlink("..v1", at("..data")).unwrap();
    std::os::unix::fs::symlink("..data/x.yaml", at("x.yaml")).unwrap();
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+a"]);
    std::os::unix::fs::symlink("..v2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    let touched = HashSet::from([at("..data")]);
    assert_eq!(names(&manifests.reload(Some(&touched))), ["-a", "+b"]);
}

#[test]
fn diagnostics_find_the_line_of_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "\n  rules:\n  - host: x.example\n  - host: y.example";
    fs::write(folder.path().join("a.yaml"), ingress("a", "") + &ingress("b", rules)).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    let origin = Origin::new("Ingress", "default", "b");
    let about = |field: &str| Diagnostic::new(Severity::Error, Reason::InvalidHost, &origin, field, "", "");
    let lines: Vec<_> = manifests
        .locate([about("spec.rules[1].host"), about(""), about("spec.tls")])
        .into_iter()
        .map(|finding| finding.place.unwrap().line.unwrap())
        .collect();
    assert_eq!(lines, [19, 10, 14]);
}

#[test]
fn a_file_that_is_gone_takes_its_objects_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    fs::write(&file, "{\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\", \"metadata\": {\"name\": \"s\"}}").unwrap();
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+s"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&manifests.reload(Some(&HashSet::from([file])))), ["-s"]);
    assert!(Manifests::open(&[folder.path().join("nothing.yaml")], Refused::Read).is_err());
}

#[test]
fn a_refused_object_keeps_its_last_good_form_where_it_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let with_path = |kind: &str| {
        let backend = "backend: {service: {name: web, port: {number: 80}}}";
        let path = format!("{{path: /, {kind}{backend}}}");
        ingress("a", &format!("\n  rules: [{{host: a.example, http: {{paths: [{path}]}}}}]"))
    };
    fs::write(&file, with_path("pathType: Exact, ") + &with_path("").replace("name: a", "name: b")).unwrap();
    let paths = [folder.path().to_owned()];
    let mut manifests = Manifests::open(&paths, Refused::LeftOut).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+a"], "the other one never was there");
    fs::write(&file, with_path("pathType: exact, ")).unwrap();
    assert!(manifests.reload(None).is_empty());
    let found = manifests.findings();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].diagnostic.field, "spec.rules[0].http.paths[0].pathType");
    assert_eq!(
        found[0].diagnostic.message,
        "Unsupported value: supported are Exact, ImplementationSpecific, Prefix; did you mean Exact?; the API server refuses the object, \
         and it is not read here"
    );
    let mut manifests = Manifests::open(&paths, Refused::Read).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+a"]);
    assert_eq!(manifests.findings().len(), 1);
}

/// Leaving the policy out would lift its restriction.
#[test]
fn a_refused_policy_counts_as_long_as_there_is_no_good_form_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let policy = |label: &str, network: &str| {
        format!(
            "apiVersion: fairway.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{name: a, labels: {{tier: {label}}}}}\nspec:\n  targetRefs:\n  \
             - {{group: gateway.networking.k8s.io, kind: HTTPRoute, name: r}}\n  access: {{allow: [{network}]}}\n"
        )
    };
    fs::write(&file, policy("no label", "192.0.2.0/24")).unwrap();
    let mut manifests = Manifests::open(&[folder.path().to_owned()], Refused::LeftOut).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+a"]);
    let message = manifests.findings()[0].diagnostic.message.clone();
    assert!(message.ends_with("refuses the object; here it counts until there is a good form of it"), "{message}");
    fs::write(&file, policy("still no label", "192.0.2.0/25")).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+a"], "one that is refused makes way for another");
    fs::write(&file, policy("label", "198.51.100.0/24")).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["+a"]);
    fs::write(&file, policy("no label", "203.0.113.0/24")).unwrap();
    assert!(manifests.reload(None).is_empty(), "the good form stays");
}

/// The API server would refuse each of them, and keep the existing object.
#[test]
fn an_object_whose_kind_or_version_is_misspelt_keeps_its_last_good_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let mut manifests = open(folder.path());
    for (right, wrong) in
        [("k8s.io/v1", "k8s.io/v2"), ("networking.k8s.io/v1", "extensions/v1beta1"), ("kind: Ingress", "kind: ingress")]
    {
        fs::write(&file, ingress("a", "")).unwrap();
        manifests.reload(None);
        fs::write(&file, ingress("a", "").replace(right, wrong)).unwrap();
        assert!(manifests.reload(None).is_empty(), "{wrong}");
        assert_eq!(order(&manifests), ["a"], "{wrong}");
        assert_eq!(manifests.findings().len(), 1, "{wrong}");
    }
}

/// Tests the order of events, however slow the machine: while the large file is being processed, the small one goes first.
#[test]
fn a_small_file_is_taken_over_while_a_large_one_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let (large, small) = (folder.path().join("large.yaml"), folder.path().join("small.yaml"));
    let many = settle::STEP * 3;
    let documents = |class: &str| (0..many).map(|at| ingress(&format!("m{at}"), class)).collect::<String>();
    // The same as one document that is a list.
    let list = |class: &str| {
        let items = (0..many).map(|at| {
            format!("- {{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: m{at}}}, spec: {{ingressClassName: n{class}, rules: [{{}}]}}}}\n")
        });
        format!("apiVersion: v1\nkind: List\nitems:\n{}", items.collect::<String>())
    };
    let mut manifests = open(folder.path());
    fs::write(&small, ingress("s", "")).unwrap();
    manifests.reload(None);
    for (round, text) in [documents(""), documents("-b"), list(""), list("-b"), String::new()].into_iter().enumerate() {
        fs::write(&large, text).unwrap();
        let unread = manifests.look(None);
        assert!(manifests.take(unread.parse()).is_empty() && manifests.has_more(), "{round}");
        let mut steps = Vec::new();
        for step in 0.. {
            fs::write(&small, ingress("s", &format!("-{round}-{step}"))).unwrap();
            let unread = manifests.look(Some(&HashSet::from([small.clone()])));
            let taken = manifests.take(unread.parse());
            assert_eq!(names(&taken), ["+s"], "{round} {step}");
            if !manifests.has_more() {
                break;
            }
            steps.push(manifests.proceed().len());
        }
        assert!(steps.iter().all(|changes| *changes <= settle::STEP), "{steps:?}");
        assert_eq!(steps.iter().sum::<usize>(), many, "{round}: each object once");
        let mut anew = open(folder.path());
        anew.reload(None);
        assert_eq!(order(&manifests).len(), order(&anew).len());
        let known = |manifests: &Manifests| {
            let mut known: Vec<_> = manifests.live.iter().map(|(key, live)| (key.clone(), live.lines)).collect();
            known.sort();
            known
        };
        assert!(known(&manifests) == known(&anew), "{round}");
    }
}

#[test]
fn a_large_file_that_is_saved_again_while_it_is_under_way_ends_as_it_is_then() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yaml");
    let documents = |from: usize, to: usize| (from..to).map(|at| ingress(&format!("m{at}"), "")).collect::<String>();
    let mut manifests = open(folder.path());
    let mut there = HashSet::new();
    for (from, to) in
        [(0, settle::STEP * 2), (settle::STEP, settle::STEP * 3), (settle::STEP * 2, settle::STEP * 2 + 3)]
    {
        fs::write(&file, documents(from, to)).unwrap();
        let unread = manifests.look(None);
        let mut changes = manifests.take(unread.parse());
        changes.extend(manifests.proceed());
        for change in changes {
            match change {
                Change::Upsert(object) => there.insert(object.key()),
                Change::Remove(key) => there.remove(&key),
            };
        }
    }
    while manifests.has_more() {
        for change in manifests.proceed() {
            match change {
                Change::Upsert(object) => there.insert(object.key()),
                Change::Remove(key) => there.remove(&key),
            };
        }
    }
    let names: std::collections::BTreeSet<_> = there.iter().map(|key| key.name.to_string()).collect();
    let expected = (settle::STEP * 2..settle::STEP * 2 + 3).map(|at| format!("m{at}")).collect();
    assert_eq!(names, expected);
    assert_eq!(manifests.counts().objects, 3);
}

#[test]
fn an_object_that_moves_to_another_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
    let mut manifests = open(folder.path());
    for (of_one, of_other) in [("x", "w"), ("z", "x"), ("x", "z")] {
        fs::write(&one, ingress(of_one, "")).unwrap();
        fs::write(&other, ingress(of_other, "")).unwrap();
        let changes = names(&manifests.reload(None));
        assert!(!changes.contains(&"-x".to_owned()), "{changes:?}");
        assert_eq!(manifests.findings(), []);
    }
    // A duplicate that appears in a large file is also found.
    let many: String = (0..settle::STEP * 2).map(|at| ingress(&format!("m{at}"), "")).collect();
    fs::write(&one, many + &ingress("z", "-late")).unwrap();
    manifests.reload(None);
    let found = manifests.findings();
    assert!(found.len() == 1 && found[0].diagnostic.message.contains("a.yaml:"), "{found:?}");
}

#[test]
fn edits_in_small_files_are_read_before_large_files() {
    let folder = tempfile::tempdir().unwrap();
    let (small, large) = (folder.path().join("small.yaml"), folder.path().join("large.yaml"));
    let many = |numbers: std::ops::Range<u32>| numbers.map(|at| ingress(&format!("h{at}"), "")).collect::<String>();
    let limit = 2 * ingress("small", "").len() as u64;
    fs::write(&small, ingress("small", "")).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    fs::write(&large, many(0..10)).unwrap();
    fs::write(&small, ingress("small", "x")).unwrap();
    let mut unread = manifests.look(None);
    let edit = unread.split_small(limit).parse();
    assert!(manifests.are_edits(&edit));
    assert_eq!(names(&manifests.take(edit)), ["+small"]);
    assert_eq!(manifests.take(unread.parse()).len(), 10);
    // An object that moved to the large file must not disappear in between, and a new one waits for objects that it may refer to.
    for content in [ingress("moved", ""), String::new(), ingress("small", "") + &ingress("new", "")] {
        fs::write(&small, content).unwrap();
        let parsed = manifests.look(None).split_small(limit).parse();
        assert!(!manifests.are_edits(&parsed));
    }
    // Many small files together are a large change.
    let together: Vec<_> = ["a.yaml", "b.yaml", "c.yaml"].map(|name| folder.path().join(name)).into();
    for (at, path) in together.iter().enumerate() {
        fs::write(path, ingress(&format!("n{at}"), "")).unwrap();
    }
    let mut unread = manifests.look(None);
    assert!(!unread.is_empty() && unread.split_small(limit).parse().paths().next().is_none());
    assert!(unread.paths().is_sorted());
}

#[test]
fn what_is_gone_beside_a_file_that_has_to_wait_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (gone, large) = (folder.path().join("gone.yaml"), folder.path().join("large.yaml"));
    fs::write(&gone, ingress("gone", "")).unwrap();
    let mut manifests = open(folder.path());
    manifests.reload(None);
    fs::remove_file(&gone).unwrap();
    fs::write(&large, ingress("a", "") + &ingress("b", "")).unwrap();
    let mut unread = manifests.look(None);
    assert_eq!(names(&manifests.take(unread.split_small(1).parse())), Vec::<String>::new());
    manifests.put_back(unread);
    assert_eq!(names(&manifests.reload(None)), ["-gone", "+a", "+b"]);
}

#[test]
fn what_a_folder_held_stays_while_the_folder_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join(".real"), folder.path().join("sub"));
    fs::create_dir(&real).unwrap();
    fs::write(real.join("x.yaml"), ingress("one", "")).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+one"]);
    // A symlink to itself can't be followed by root either.
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&link, &link).unwrap();
    assert_eq!(names(&manifests.reload(None)), [] as [&str; 0]);
    let [found] = &manifests.findings()[..] else { panic!("{:?}", manifests.findings()) };
    assert_eq!(found.place.as_ref().map(|place| &*place.file), Some(&*link));
    let message = &found.diagnostic.message;
    assert!(
        message.starts_with("can't be read: ") && message.ends_with("; its last content stays in effect"),
        "{message}"
    );
    // Gone altogether, it takes its objects along.
    fs::remove_file(&link).unwrap();
    assert_eq!(names(&manifests.reload(None)), ["-one"]);
    assert!(manifests.findings().is_empty());
}
