//! Maps images to programs.
//!
//! There is no container runtime and nothing is pulled: the repository of an image's name determines the program to run. Our own image, the
//! echo server of the Gateway API and cert-manager's solver are root file systems on disk; every other known image is a program over the
//! host's system directories.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// The image part of a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Image {
    /// The files visible in the container.
    pub root: Root,
    /// The command if the container names none.
    pub entrypoint: Vec<String>,
    /// The arguments of the entrypoint if the container names none.
    pub arguments: Vec<String>,
    /// Variables, which those of the container follow.
    pub environment: Vec<(String, String)>,
    /// The user and group if the security context names none.
    pub user: (u32, u32),
    /// The directory in which the program starts.
    pub working_directory: String,
    /// The image that the container's status shows.
    pub id: String,
}

/// The files of an image.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// Only this directory.
    Directory(PathBuf),
    /// The host's `/usr`, `/bin`, `/lib` and `/lib64`, read-only, and `/fairway-cluster`, which is this program.
    Host,
}

/// The default `PATH` if neither image nor container sets one, as in container runtimes.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user of our image if its configuration file names none: that of "nonroot" images.
const NONROOT: u32 = 65532;

/// Finds the program for an image's name. `None` if the image is unknown.
///
/// The configuration of our own image is read from `config.json` beside its root directory (`User`, `Entrypoint`,
/// `Cmd`, `Env`, `WorkingDir`, as in an OCI image); the defaults are those of a "nonroot" image whose program is
/// `/fairway`.
///
/// # Errors
/// If our own image is requested but not built, or its configuration is invalid.
pub fn find(name: &str, image_root: &Path) -> anyhow::Result<Option<Image>> {
    let host = |id: &str, entrypoint: &[&str], arguments: &[&str]| Image {
        root: Root::Host,
        entrypoint: strings(entrypoint),
        arguments: strings(arguments),
        environment: Vec::new(),
        user: (0, 0),
        working_directory: "/".to_owned(),
        id: format!("local/{id}"),
    };
    let repository = repository(name);
    // The conformance images have moved between projects: only the last part of their names is stable.
    let last = repository.rsplit_once('/').map_or(repository, |(_, last)| last);
    Ok(match repository {
        "fairway/fairway" => Some(own(image_root)?),
        // Test programs: any of our subcommands.
        "fairway/cluster" => Some(host("cluster", &["/fairway-cluster"], &[])),
        // The Gateway API's suite runs with its own echo server.
        "gateway-api/conformance/echo-basic" => {
            Some(alone(image_root, "echo-basic", "`cargo xtask conformance gateway`")?)
        }
        // The pod of cert-manager that answers a challenge.
        "jetstack/cert-manager-acmesolver" => Some(alone(image_root, "acmesolver", "`cargo xtask e2e ecosystem`")?),
        "ingressconformance/echoserver" => Some(host("echo", &["/fairway-cluster", "echo"], &[])),
        _ if last == "echo-basic" => Some(host("echo", &["/fairway-cluster", "echo"], &[])),
        // The image of the chart's `defaultBackend`, on every architecture.
        _ if last == "defaultbackend" || last.starts_with("defaultbackend-") => {
            Some(host("defaultbackend", &["/fairway-cluster", "echo", "--mode", "default-backend"], &[]))
        }
        "busybox" | "library/busybox" => Some(host("busybox", &[], &["sh"])),
        _ => None,
    })
}

/// The part of an image's name without registry, tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    match name.split_once('/') {
        Some((registry, rest)) if registry.contains(['.', ':']) || registry == "localhost" => rest,
        _ => name,
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Config {
    user: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Vec<String>,
    env: Vec<String>,
    working_dir: Option<String>,
}

fn own(root: &Path) -> anyhow::Result<Image> {
    if !root.is_dir() {
        anyhow::bail!("{} does not exist: the image was not built", root.display());
    }
    let path = root.with_file_name("config.json");
    let config: Config = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Config::default(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let user = match config.user.as_deref() {
        None | Some("") => (NONROOT, NONROOT),
        Some(text) => user(text).with_context(|| format!("{}: User is not of the form UID[:GID]", path.display()))?,
    };
    let environment = config.env.iter().filter_map(|pair| pair.split_once('='));
    Ok(Image {
        root: Root::Directory(root.to_owned()),
        entrypoint: config.entrypoint.unwrap_or_else(|| vec!["/fairway".to_owned()]),
        arguments: config.cmd,
        environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        user,
        working_directory: config.working_dir.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()),
        id: "local/fairway".to_owned(),
    })
}

/// An image beside our own that contains only a program of the same name.
fn alone(image_root: &Path, name: &str, builder: &str) -> anyhow::Result<Image> {
    let root = image_root.with_file_name(name);
    if !root.join(name).is_file() {
        anyhow::bail!("{} does not exist: {builder} builds it", root.display());
    }
    Ok(Image {
        root: Root::Directory(root),
        entrypoint: vec![format!("/{name}")],
        arguments: Vec::new(),
        environment: Vec::new(),
        user: (NONROOT, NONROOT),
        working_directory: "/".to_owned(),
        id: format!("local/{name}"),
    })
}

fn user(text: &str) -> Option<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    Some((user.parse().ok()?, group.parse().ok()?))
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().copied().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_tag_and_digest_do_not_matter() {
        for name in [
            "busybox",
            "busybox:1.36",
            "busybox@sha256:00",
            "localhost/busybox",
            "example.com/busybox:1",
            "example.com:5000/busybox",
        ] {
            assert_eq!(repository(name), "busybox", "{name}");
        }
        assert_eq!(repository("fairway/fairway:0.1.0@sha256:00"), "fairway/fairway");
    }

    #[test]
    fn unknown_images_are_not_found() {
        assert_eq!(find("nginx:1.29", Path::new("/nowhere")).expect("no error"), None);
    }

    #[test]
    fn the_images_of_the_conformance_suites_and_the_default_backend_are_known() {
        for (name, id) in [
            ("ingressconformance/echoserver:v0.0.1", "local/echo"),
            ("gcr.io/k8s-staging-gateway-api/echo-basic:v20240412-v1.0.0-394-g40c666fd", "local/echo"),
            ("registry.k8s.io/defaultbackend-amd64:1.5", "local/defaultbackend"),
        ] {
            let image = find(name, Path::new("/nowhere")).expect("no error").expect(name);
            assert_eq!(image.id, id, "{name}");
        }
    }

    #[test]
    fn programs_of_other_projects_are_their_whole_image_once_they_are_built() {
        for (name, program, builder) in [
            (
                "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
                "echo-basic",
                "cargo xtask conformance gateway",
            ),
            ("quay.io/jetstack/cert-manager-acmesolver:v1.21.2", "acmesolver", "cargo xtask e2e ecosystem"),
        ] {
            let directory = tempfile::tempdir().expect("a directory");
            let find = || find(name, &directory.path().join("rootfs"));
            let error = find().expect_err("not built");
            assert!(error.to_string().contains(builder), "{error}");
            let root = directory.path().join(program);
            std::fs::create_dir(&root).expect("a directory");
            std::fs::write(root.join(program), "").expect("a file");
            let image = find().expect("an image").expect("known");
            assert_eq!((image.id, image.root), (format!("local/{program}"), Root::Directory(root)));
        }
    }

    #[test]
    fn our_image_is_an_error_until_it_is_built_and_reads_its_configuration_then() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("rootfs");
        let error = find("fairway/fairway", &root).expect_err("not built");
        assert!(error.to_string().contains("was not built"), "{error}");

        std::fs::create_dir(&root).expect("a directory");
        let image = find("fairway/fairway:dev", &root).expect("an image").expect("known");
        assert_eq!((image.user, image.entrypoint), ((65532, 65532), vec!["/fairway".to_owned()]));

        let config = r#"{"User":"101:82","Entrypoint":["/fairway","run"],"Env":["A=b=c"],"WorkingDir":"/var"}"#;
        std::fs::write(directory.path().join("config.json"), config).expect("a file");
        let image = find("fairway/fairway", &root).expect("an image").expect("known");
        assert_eq!(image.user, (101, 82));
        assert_eq!(image.environment, [("A".to_owned(), "b=c".to_owned())]);
        assert_eq!(image.working_directory, "/var");
    }
}
