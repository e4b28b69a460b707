use std::fs;

use super::*;

fn ingress(name: &str, extra: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: {name}\nspec:\n  ingressClassName: nginx{extra}\n"
    )
}

fn open(folder: &Path) -> Manifests {
    Manifests::open(&[folder.to_owned()]).unwrap()
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
    assert!(findings[0].place.as_ref().unwrap().line >= Some(9), "{findings:?}");
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
    assert_eq!(findings[0].place.as_ref().unwrap().line, Some(8));
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
    assert_eq!(lines, [17, 9, 13]);
}

#[test]
fn a_file_that_is_gone_takes_its_objects_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    fs::write(&file, "{\"apiVersion\": \"v1\",\n\t\"kind\": \"Service\", \"metadata\": {\"name\": \"s\"}}").unwrap();
    let mut manifests = open(folder.path());
    assert_eq!(names(&manifests.reload(None)), ["+s"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(names(&manifests.reload(Some(&HashSet::from([file])))), ["-s"]);
    assert!(Manifests::open(&[folder.path().join("nothing.yaml")]).is_err());
}
