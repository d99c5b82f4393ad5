//! File systems of their own, in image files, whose power can be cut: whatever was not synced is lost.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use world::program;

/// Size of an image, of which only the used part takes room.
const BYTES: u64 = 96 * 1024 * 1024;
/// Attempts to mount or unmount: the loop devices are shared with the whole machine.
const ATTEMPTS_MAX: u32 = 50;

/// An ext4 file system in a file. It is unmounted when this is dropped, which also frees its loop device.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    options: &'static str,
    is_mounted: bool,
}

impl Disk {
    /// Makes a file system in the file `image` and mounts it at `mount`.
    pub fn new(image: PathBuf, mount: PathBuf, options: &'static str) -> Result<Disk, String> {
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        drop(file);
        let lazy = ["-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", "-J", "size=4"];
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(lazy).arg(&image))?;
        std::fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
        let mut disk = Disk { image, mount, options, is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Mounts the file system, which recovers its journal.
    pub fn mount(&mut self) -> Result<(), String> {
        let options = format!("loop,noinit_itable,{}", self.options);
        patiently(|| {
            run(Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(&self.image).arg(&self.mount))
        })?;
        self.is_mounted = true;
        Ok(())
    }

    /// Unmounts the file system.
    pub fn unmount(&mut self) -> Result<(), String> {
        if self.is_mounted {
            patiently(|| run(Command::new("umount").arg(&self.mount)))?;
            self.is_mounted = false;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let _ = run(Command::new("umount").arg("--lazy").arg(&self.mount));
        }
    }
}

/// A process that can cut the power of some disks at any moment.
pub struct Switch {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Switch {
    /// Returns once the switch is ready.
    pub fn of(disks: &[Disk]) -> Result<Switch, String> {
        let python = std::env::var_os("TRUEUP_PYTHON").unwrap_or_else(|| "python3".into());
        let mut child = Command::new(python)
            .args(["-I", "-S"])
            .arg(world::root().join("tests/python/cut_power.py"))
            // The last disk may be mounted on the first one.
            .args(disks.iter().rev().map(Disk::path))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("Python does not start: {error}"))?;
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut switch = Switch { child, input, output };
        switch.expect("ready")?;
        Ok(switch)
    }

    /// Cuts the power. Returns once nothing more reaches the disks.
    pub fn cut(&mut self) -> Result<(), String> {
        self.input.write_all(b"cut\n").map_err(|error| error.to_string())?;
        self.expect("cut")
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        if line.trim_end() == word { Ok(()) } else { Err(format!("the switch says {line:?}, not {word:?}")) }
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", program::text(&output))) }
}

fn patiently(mut step: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    let mut attempts = 1;
    loop {
        match step() {
            Err(_) if attempts < ATTEMPTS_MAX => attempts += 1,
            outcome => return outcome,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
