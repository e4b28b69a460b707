//! Completions and manual pages.

use crate::support::{run, text};

#[test]
fn every_shell_gets_completions_of_all_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = run(["completions", shell]);
        let script = text(&output);
        assert!(output.status.success(), "{shell}");
        for word in ["explain", "fail-on", "read-only", "controller-class"] {
            assert!(script.contains(word), "{word} for {shell}");
        }
    }
    assert_eq!(run(["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn each_command_has_a_manual_page() {
    assert!(text(&run(["man"])).contains(".TH fairway 1"));
    let folder = tempfile::tempdir().unwrap();
    assert!(run(["man".as_ref(), folder.path().as_os_str()]).status.success());
    for page in
        ["fairway.1", "fairway-dev.1", "fairway-check.1", "fairway-explain.1", "fairway-compare.1", "fairway-run.1"]
    {
        let text = std::fs::read_to_string(folder.path().join(page)).expect(page);
        assert!(text.contains("Examples") || page == "fairway.1", "{page}");
    }
    let new = folder.path().join("new");
    assert!(run(["man".as_ref(), new.as_os_str()]).status.success() && new.join("fairway.1").exists());
    let in_a_file = folder.path().join("fairway.1/pages");
    assert_eq!(run(["man".as_ref(), in_a_file.as_os_str()]).status.code(), Some(1));
}
