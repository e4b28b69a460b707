//! The Go programs that make up a cluster: built once, and found under one path.
//!
//! The modules in `e2e/tools/` pin them. A program is built into `target/tools/<module>-<version>/`, and
//! `target/tools/bin/` has a link to the version in use. A file beside each program records its inputs; if they change,
//! it is rebuilt.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::console::duration;
use crate::lock::Lock;
use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{go, shell};

/// A Go module of ours and its programs.
struct Module {
    /// Its folder in `e2e/tools/`, and the first part of the name of its programs' folder.
    name: &'static str,
    /// The required module that determines the version.
    pinned: &'static str,
    /// The programs and their packages.
    programs: &'static [(&'static str, &'static str)],
    /// How to build a program from a package.
    make: Make,
}

/// How `go` builds a program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Make {
    /// From a package that is a program.
    Build,
    /// From a package that is a program, without the cloud platforms in which Prometheus can discover targets: they make up most of it.
    WithoutClouds,
    /// From a package that is a program; links no library of the machine.
    Static,
    /// Like `Build`, but with our Go release, because the module requires a newer one than Debian's.
    Newer,
}

/// A program of a module, and its inputs.
struct Build {
    program: &'static str,
    package: &'static str,
    /// Without the `v`.
    version: String,
    /// The folder with the module's files.
    sources: PathBuf,
    /// Its folder in `target/tools`.
    folder: String,
    make: Make,
    /// The `go` command and its arguments.
    arguments: Vec<String>,
    /// The module's files.
    module: String,
}

/// The Go module of the tools that read metrics.
const PROMETHEUS: &str = "prometheus";

/// The Go module of the HTTP/2 conformance suite.
const H2SPEC: &str = "h2spec";

/// The Go module of gRPC's interoperability cases.
const GRPC: &str = "grpc";

/// The Go module of an authentication service.
const AUTH: &str = "auth";

/// The Go module of cert-manager.
pub(crate) const CERT_MANAGER: &str = "cert-manager";

/// The Go modules of programs that users run beside an ingress controller, and of a certificate authority.
const ECOSYSTEM: [&str; 3] = ["pebble", CERT_MANAGER, "external-dns"];

/// The modules of programs that no cluster needs.
const APART: [&str; 4] = [PROMETHEUS, H2SPEC, GRPC, AUTH];

const MODULES: &[Module] = &[
    Module {
        name: "etcd",
        pinned: "go.etcd.io/etcd/server/v3",
        programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
        make: Make::Build,
    },
    Module {
        name: "kubernetes",
        pinned: "k8s.io/kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
        make: Make::Build,
    },
    Module {
        name: "helm",
        pinned: "helm.sh/helm/v4",
        programs: &[("helm", "helm.sh/helm/v4/cmd/helm")],
        make: Make::Build,
    },
    Module {
        name: H2SPEC,
        pinned: "github.com/summerwind/h2spec",
        programs: &[("h2spec", "github.com/summerwind/h2spec/cmd/h2spec")],
        make: Make::Build,
    },
    Module {
        name: GRPC,
        pinned: "google.golang.org/grpc",
        programs: &[
            ("grpc-client", "google.golang.org/grpc/interop/client"),
            ("grpc-server", "google.golang.org/grpc/interop/server"),
            ("grpc-matrix", "./matrix"),
        ],
        make: Make::Build,
    },
    Module {
        name: AUTH,
        pinned: "github.com/oauth2-proxy/oauth2-proxy/v7",
        programs: &[("oauth2-proxy", "github.com/oauth2-proxy/oauth2-proxy/v7")],
        make: Make::Build,
    },
    Module {
        name: PROMETHEUS,
        pinned: "github.com/prometheus/prometheus",
        programs: &[
            ("promtool", "github.com/prometheus/prometheus/cmd/promtool"),
            ("prometheus", "github.com/prometheus/prometheus/cmd/prometheus"),
        ],
        make: Make::WithoutClouds,
    },
    Module {
        name: ECOSYSTEM[0],
        pinned: "github.com/letsencrypt/pebble/v2",
        programs: &[
            ("pebble", "github.com/letsencrypt/pebble/v2/cmd/pebble"),
            ("pebble-challtestsrv", "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv"),
        ],
        make: Make::Build,
    },
    Module {
        name: CERT_MANAGER,
        pinned: "github.com/cert-manager/cert-manager",
        programs: &[("cert-manager", "./controller"), ("acmesolver", "./acmesolver")],
        make: Make::Static,
    },
    Module {
        name: ECOSYSTEM[2],
        pinned: "sigs.k8s.io/external-dns",
        programs: &[("external-dns", ".")],
        make: Make::Newer,
    },
];

/// Builds missing programs of a cluster and prints how long each took; that may be minutes.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| !APART.contains(&module.name) && !ECOSYSTEM.contains(&module.name))
}

/// Builds cert-manager, external-dns and pebble if they are missing; that takes minutes.
pub(crate) fn build_ecosystem(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Some(failure) = go::install(workspace)? {
        return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
    }
    build_of(workspace, |module| ECOSYSTEM.contains(&module.name))
}

/// Builds Prometheus and its tool if they are missing; that takes minutes.
pub(crate) fn build_for_alerts(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| module.name == PROMETHEUS)
}

/// Builds h2spec if it is missing.
pub(crate) fn build_h2spec(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| module.name == H2SPEC)
}

/// Builds grpc-go's programs if they are missing: client and server of its interoperability cases, and the server of the matrix.
pub(crate) fn build_grpc(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| module.name == GRPC)
}

/// Builds oauth2-proxy if it is missing.
pub(crate) fn build_oauth(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| module.name == AUTH)
}

/// Builds helm if missing: the chart is rendered without a cluster and so without the cluster's programs.
pub(crate) fn build_helm(workspace: &Workspace) -> anyhow::Result<Outcome> {
    build_of(workspace, |module| module.name == "helm")
}

fn build_of(workspace: &Workspace, is_wanted: impl Fn(&Module) -> bool) -> anyhow::Result<Outcome> {
    let tools = workspace.root.join("target").join("tools");
    let links = tools.join("bin");
    fs::create_dir_all(&links).with_context(|| format!("creating {}", links.display()))?;
    let (mut kept, mut built) = (0, 0);
    for module in MODULES.iter().filter(|module| is_wanted(module)) {
        let _lock = Lock::wait(&tools.join(module.name).with_extension("lock"), &workspace.console)?;
        let builds = module.builds(&workspace.root.join("e2e/tools"))?;
        let missing = builds.iter().filter(|build| !build.is_done(&tools)).count();
        kept += builds.len() - missing;
        let mut place = 0;
        for build in &builds {
            if !build.is_done(&tools) {
                place += 1;
                if let Some(failure) = build.run(workspace, &tools, &format!("{place} of {missing}"))? {
                    return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
                }
            }
            link(&links.join(build.program), &Path::new("..").join(&build.folder).join(build.program))?;
        }
        built += missing;
    }
    Ok(Outcome::passed(format!("{kept} programs were there, {built} built, in {}", links.display())))
}

impl Module {
    /// Reads the module's files in a folder of `sources`.
    fn builds(&self, sources: &Path) -> anyhow::Result<Vec<Build>> {
        let sources = sources.join(self.name);
        let read = |name: &str| {
            let path = sources.join(name);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let (requirements, sums) = (read("go.mod")?, read("go.sum")?);
        let version = required(&requirements, self.pinned)
            .with_context(|| format!("no {} in {}", self.pinned, sources.join("go.mod").display()))?;
        let module = format!("{requirements}\n{sums}{}", own(&sources)?);
        let build = |&(program, package): &(&'static str, &'static str)| Build {
            program,
            package,
            version: version.to_owned(),
            sources: sources.clone(),
            folder: format!("{}-{version}", self.name),
            make: self.make,
            arguments: [self.make.words(), &["-trimpath", "-ldflags", &flags(package, version)]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            module: module.clone(),
        };
        Ok(self.programs.iter().map(build).collect())
    }
}

impl Make {
    /// The `go` command and its arguments.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Build | Self::Newer => &["build"],
            Self::WithoutClouds => &["build", "-tags", "remove_all_sd"],
            Self::Static => &["build", "-tags", "netgo,osusergo"],
        }
    }

    /// The Go release that it needs, and how to get it.
    fn needs(self, workspace: &Workspace) -> String {
        match self {
            Self::Build | Self::WithoutClouds | Self::Static => {
                "Go 1.26 or newer: install it from https://go.dev/dl".to_owned()
            }
            Self::Newer => {
                let folder = go::folder(workspace);
                format!(
                    "Go {}, which doesn't run in {}: remove that folder, then it is installed anew",
                    go::RELEASE,
                    folder.display()
                )
            }
        }
    }

    /// The `go` in a folder with a module.
    fn go(self, workspace: &Workspace, folder: &Path) -> Command {
        if self == Self::Newer {
            return go::command(workspace, folder);
        }
        let mut command = workspace.command("go");
        command.current_dir(folder);
        command
    }
}

impl Build {
    fn file(&self, tools: &Path) -> PathBuf {
        tools.join(&self.folder).join(self.program)
    }

    /// The file that records the inputs of the program.
    fn stamp(&self, tools: &Path) -> PathBuf {
        tools.join(&self.folder).join(format!("{}.from", self.program))
    }

    /// All inputs in full: this shows what changed, and needs no hash.
    fn origin(&self) -> String {
        format!("go {} {}\n\n{}", self.arguments.join(" "), self.package, self.module)
    }

    fn is_done(&self, tools: &Path) -> bool {
        self.file(tools).exists() && fs::read_to_string(self.stamp(tools)).is_ok_and(|origin| origin == self.origin())
    }

    /// Builds the program; returns the failure, if any.
    fn run(&self, workspace: &Workspace, tools: &Path, place: &str) -> anyhow::Result<Option<String>> {
        let Self { program, version, .. } = self;
        let (console, file, stamp) = (&workspace.console, self.file(tools), self.stamp(tools));
        if !shell::succeeds(self.make.go(workspace, &self.sources).arg("version")) {
            return Ok(Some(format!("building {program} takes {}", self.make.needs(workspace))));
        }
        let start = Instant::now();
        console.line(&format!("building {program} {version} ({place}); once, it is kept in target/tools"));
        // An interrupted build must not leave anything that looks finished.
        let partial = partial(&file);
        if stamp.exists() {
            fs::remove_file(&stamp).with_context(|| format!("removing {}", stamp.display()))?;
        }
        let mut command = self.make.go(workspace, &self.sources);
        // -v prints the packages, for the progress line.
        command.args(&self.arguments).args(["-v", "-o"]).arg(&partial);
        let finished = shell::run(console, command.arg(self.package), |_| false)?;
        if !finished.success {
            return Ok(Some(format!("`{}` failed:\n{}", shell::display(&command), finished.output)));
        }
        fs::rename(&partial, &file).with_context(|| format!("moving {} to its place", file.display()))?;
        fs::write(&stamp, self.origin()).with_context(|| format!("writing {}", stamp.display()))?;
        console.line(&format!("built {program} {version} in {}", duration(start.elapsed())));
        Ok(None)
    }
}

/// Our own programs in a module's folder and its subfolders, one after another.
fn own(sources: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    let mut folders = vec![sources.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "go") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |path: &PathBuf| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    files.iter().map(read).collect()
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// The linker flags. A Kubernetes program without a version calls itself v0.0.0, and helm believes it.
fn flags(package: &str, version: &str) -> String {
    let mut flags = "-s -w".to_owned();
    if package.starts_with("k8s.io/kubernetes/") {
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (name, value) in
            [("gitVersion", format!("v{version}")), ("gitMajor", major.into()), ("gitMinor", minor.into())]
        {
            flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
        }
    }
    flags
}

/// The version of `module` in the text of a go.mod, without its `v`.
fn required<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let mut words = line.strip_prefix("require ").unwrap_or(line).split_whitespace();
        (words.next() == Some(module)).then(|| words.next()?.strip_prefix('v')).flatten()
    })
}

/// Makes `path` a link to `target`, unless it already is.
fn link(path: &Path, target: &Path) -> anyhow::Result<()> {
    if fs::read_link(path).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let partial = partial(path);
    let _ = fs::remove_file(&partial);
    std::os::unix::fs::symlink(target, &partial).with_context(|| format!("linking {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("linking {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module_file() {
        let text = "module x\n\nrequire k8s.io/kubernetes v1.36.3\n\nrequire (\n\thelm.sh/helm/v4 v4.3.1 // indirect\n)\n\
                    replace k8s.io/api => k8s.io/api v0.36.3\n";
        assert_eq!(required(text, "k8s.io/kubernetes"), Some("1.36.3"));
        assert_eq!(required(text, "helm.sh/helm/v4"), Some("4.3.1"));
        assert_eq!(required(text, "k8s.io/api"), None);
    }

    #[test]
    fn a_program_is_rebuilt_if_its_inputs_change() {
        let folder = std::env::temp_dir().join(format!("fairway-tools-{}", std::process::id()));
        let sources = folder.join("helm");
        fs::create_dir_all(&sources).unwrap();
        fs::write(sources.join("go.mod"), "require helm.sh/helm/v4 v4.3.1\n").unwrap();
        fs::write(sources.join("go.sum"), "one\n").unwrap();
        let build = || MODULES[2].builds(&folder).unwrap().remove(0);
        let done = || build().is_done(&folder);
        assert!(!done());
        let file = build().file(&folder);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "a program").unwrap();
        assert!(!done(), "its inputs are unknown");
        fs::write(build().stamp(&folder), build().origin()).unwrap();
        assert!(done());
        fs::write(sources.join("go.sum"), "two\n").unwrap();
        assert!(!done(), "go.sum has changed");
        fs::write(sources.join("go.sum"), "one\n").unwrap();
        assert!(done());
        fs::create_dir_all(sources.join("inner")).unwrap();
        fs::write(sources.join("inner/main.go"), "package main\n").unwrap();
        assert!(!done(), "it has a program of ours");
        fs::remove_file(sources.join("inner/main.go")).unwrap();
        assert!(done());
        let mut other = build();
        other.arguments.push("-race".to_owned());
        assert!(!other.is_done(&folder), "the arguments have changed");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn kubernetes_programs_get_their_version() {
        let flags = flags("k8s.io/kubernetes/cmd/kubectl", "1.36.3");
        assert!(flags.contains("version.gitVersion=v1.36.3 ") && flags.ends_with("gitMinor=36"), "{flags}");
    }
}
