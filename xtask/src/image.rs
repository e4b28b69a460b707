//! The root file system of the container image: one static binary that may listen on low ports without root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::cargo;
use crate::lock::Lock;
use crate::outcome::Outcome;
use crate::shell;
use crate::totals::Totals;
use crate::workspace::Workspace;

/// Relative to the repository root, independent of the target folder.
pub(crate) const ROOT: &str = "target/image/rootfs";
/// What ran under the loads of `cargo xtask profile`, relative to the root. The compiler places and inlines by it.
pub(crate) const PROFILE: &str = "deploy/image.profdata";
/// Held while the image is built: two builds would replace each other's files.
const LOCK: &str = "target/image.lock";
/// The image contains only the binary.
const LARGEST: u64 = 40_800_000;

/// Builds the image and runs it under chroot as another user.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let built = build(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let mut command = workspace.cargo();
    // With the whole workspace: dependencies built for one package alone have other features and would be built twice.
    command.args(["test", "--locked", "--workspace", "--test", "image"]);
    command.env("FAIRWAY_ROOTFS", workspace.root.join(ROOT));
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    let totals = Totals::sum(&finished.output);
    let failure = (!finished.success || totals.passed == 0).then_some(finished.output);
    Ok(Outcome { note: format!("{}, {totals}", built.note), failure, totals })
}

/// Builds the image.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let _lock = Lock::wait(&workspace.root.join(LOCK), &workspace.console)?;
    let profile = format!("profile-use={}", workspace.root.join(PROFILE).display());
    let built = match compile(workspace, &workspace.target_folder()?, &profile)? {
        Ok(built) => built,
        Err(failed) => return Ok(failed),
    };
    let binary = place(&built, &workspace.root.join(ROOT))?;
    let size = fs::metadata(&binary)?.len();
    ensure!(size <= LARGEST, "{} has {size} bytes, more than the {LARGEST} allowed for the image", binary.display());
    ensure!(is_static(&fs::read(&binary)?), "{} needs a dynamic linker", binary.display());
    allow_low_ports(workspace, &binary)?;
    Ok(Outcome::passed(format!("{:.1} MB in {ROOT}", size as f64 / 1e6)))
}

/// Compiles the image's binary into a target folder, with one more option for code generation (`-C`). Returns its path, or the outcome to
/// report.
pub(crate) fn compile(workspace: &Workspace, folder: &Path, option: &str) -> anyhow::Result<Result<PathBuf, Outcome>> {
    let target = host(workspace)?;
    let given = std::env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<&str> = given.split_whitespace().collect();
    // The third one keeps hot and cold functions apart, so that a request touches fewer pages.
    let of_image = ["target-feature=+crt-static", "strip=symbols", "link-arg=-Wl,-z,keep-text-section-prefix", option];
    flags.extend(of_image.into_iter().flat_map(|flag| ["-C", flag]));
    let mut command = workspace.cargo();
    // With --target, the flags do not apply to build scripts and macros, which can't be static.
    command.args(["build", "--locked", "--package", "fairway", "--profile", "image", "--target", &target]);
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")).env("CARGO_TARGET_DIR", folder);
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    if !finished.success {
        let failure = Some(format!("`{}` failed:\n{}", shell::display(&command), finished.output));
        return Ok(Err(Outcome { failure, ..Outcome::default() }));
    }
    Ok(Ok(folder.join(&target).join("image/fairway")))
}

/// Replaces the image by a development build with its shared libraries, for a run that can't wait for the image to be built.
pub(crate) fn build_development(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let outcome = cargo::build(workspace, &["--bin", "fairway"])?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    let _lock = Lock::wait(&workspace.root.join(LOCK), &workspace.console)?;
    let built = workspace.target_folder()?.join("debug/fairway");
    let root = workspace.root.join(ROOT);
    let binary = place(&built, &root)?;
    let listed = String::from_utf8(shell::read(workspace.command("ldd").arg(&built))?)?;
    for library in libraries(&listed) {
        let copy = root.join(library.trim_start_matches('/'));
        let folder = copy.parent().context("a library in a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        fs::copy(library, &copy).with_context(|| format!("copying {library}"))?;
    }
    allow_low_ports(workspace, &binary)?;
    Ok(Outcome::passed(format!("a development build in {ROOT}")))
}

/// The files of the libraries that `ldd` lists, and of the dynamic loader.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// The machine's own target: nothing is cross-compiled.
fn host(workspace: &Workspace) -> anyhow::Result<String> {
    let version = String::from_utf8(shell::read(workspace.command("rustc").arg("-vV"))?)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Creates a folder that contains only the binary.
fn place(built: &Path, root: &Path) -> anyhow::Result<PathBuf> {
    // Pods of a running cluster may have the old folder as their root, so it is replaced as a whole.
    let fresh = root.with_extension("new");
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    fs::copy(built, fresh.join("fairway")).with_context(|| format!("copying {}", built.display()))?;
    fs::set_permissions(fresh.join("fairway"), fs::Permissions::from_mode(0o555))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
    let _ = fs::remove_dir_all(root);
    fs::rename(&fresh, root)?;
    Ok(root.join("fairway"))
}

/// Permitted, not effective: a container that drops all capabilities can still start the binary, which raises the
/// capability itself.
fn allow_low_ports(workspace: &Workspace, binary: &Path) -> anyhow::Result<()> {
    let mut command = workspace.command("setcap");
    shell::read(command.arg("cap_net_bind_service=+p").arg(binary))
        .context("setcap needs root, a file system with extended attributes, and the Debian package libcap2-bin")?;
    Ok(())
}

/// Whether an ELF file names no interpreter (program header `PT_INTERP`). Supports both widths, little endian.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, width: usize| -> Option<u64> {
        let bytes = elf.get(at..at + width)?;
        Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    };
    let read = || {
        let wide = number(4, 1)? == 2;
        let (table, size, count) = if wide {
            (number(32, 8)?, number(54, 2)?, number(56, 2)?)
        } else {
            (number(28, 4)?, number(42, 2)?, number(44, 2)?)
        };
        let mut kinds = (0..count).map(|index| number((table + index * size) as usize, 4));
        Some(elf.starts_with(b"\x7fELF") && count > 0 && kinds.all(|kind| kind.is_some_and(|kind| kind != PT_INTERP)))
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_libraries_are_found_in_the_list() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(listed).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn programs_with_an_interpreter_differ_from_static_ones() {
        let own = fs::read("/proc/self/exe").unwrap();
        assert!(!is_static(&own), "a test binary is linked dynamically");
        let mut header = own[..64].to_vec();
        // One program header, PT_LOAD, directly after the file header.
        header[32..40].copy_from_slice(&64_u64.to_le_bytes());
        header[56..58].copy_from_slice(&1_u16.to_le_bytes());
        header.extend_from_slice(&1_u32.to_le_bytes());
        assert!(is_static(&header));
        assert!(!is_static(&header[..64]) && !is_static(b""));
    }
}
