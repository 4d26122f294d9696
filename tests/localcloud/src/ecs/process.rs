//! Containers as processes of this machine.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;

/// The script ensures that the process ends when the local cloud ends or is killed.
const SUPERVISOR: &str = include_str!("supervisor.sh");

/// The `PATH` of images that do not set it.
/// <https://docs.docker.com/reference/dockerfile/#environment-replacement>
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[derive(Debug, Clone, PartialEq)]
pub struct CommandLine {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The working directory, on this machine.
    pub directory: PathBuf,
    /// The complete environment. Nothing is inherited.
    pub environment: BTreeMap<String, String>,
}

impl CommandLine {
    /// Finds `argv[0]` inside an image's `root` as the container runtime does: an absolute path as it is,
    /// a path with a slash from the working directory, and a name without a slash in `PATH`.
    ///
    /// # Errors
    /// The message of the runtime, if the program does not exist.
    pub fn resolve(
        root: &Path,
        working_dir: Option<&str>,
        argv: &[String],
        mut environment: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let Some((name, arguments)) = argv.split_first() else {
            return Err("no command specified".to_owned());
        };
        let directory = inside(root, working_dir.unwrap_or("/"));
        let path = environment
            .get("PATH")
            .map_or(DEFAULT_PATH, String::as_str)
            .to_owned();
        let in_image: Vec<PathBuf> = path.split(':').map(|entry| inside(root, entry)).collect();
        let program = if name.starts_with('/') {
            inside(root, name)
        } else if name.contains('/') {
            directory.join(name)
        } else {
            in_image
                .iter()
                .map(|entry| entry.join(name))
                .find(|candidate| candidate.is_file())
                .ok_or_else(|| format!("exec: \"{name}\": executable file not found in $PATH"))?
        };
        if !program.is_file() {
            return Err(format!(
                "exec: \"{name}\": stat {name}: no such file or directory"
            ));
        }
        // The interpreters of scripts come from this machine, because those of the image would need a
        // chroot.
        let path = in_image
            .iter()
            .map(|entry| entry.to_string_lossy().into_owned())
            .chain([DEFAULT_PATH.to_owned()])
            .collect::<Vec<_>>()
            .join(":");
        environment.insert("PATH".to_owned(), path);
        Ok(CommandLine {
            program,
            arguments: arguments.to_vec(),
            directory,
            environment,
        })
    }
}

/// A path in the image as a path on this machine. `..` does not lead above the root.
fn inside(root: &Path, path: &str) -> PathBuf {
    let mut result = root.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => result.push(name),
            Component::ParentDir if result != root => {
                result.pop();
            }
            _ => {}
        }
    }
    result
}

/// A running process. It is killed when this and all its [`Control`]s are dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    control: Control,
}

/// A handle with which other code can signal a process.
#[derive(Debug, Clone)]
pub struct Control {
    /// The id of the process group, which is also the process id of the supervisor.
    pub group: u32,
    commands: Arc<Mutex<Option<ChildStdin>>>,
}

impl Control {
    /// Sends a signal, e.g. `TERM`, to the process. Nothing happens if it has ended.
    pub async fn signal(&self, name: &str) {
        if let Some(commands) = self.commands.lock().await.as_mut() {
            let line = format!("{name}\n");
            let _ = commands.write_all(line.as_bytes()).await;
            let _ = commands.flush().await;
        }
    }

    /// Kills the whole process group.
    pub async fn destroy(&self) {
        self.commands.lock().await.take();
    }
}

impl Process {
    /// Starts a process in a new process group. The two pipes carry its output.
    ///
    /// # Errors
    /// If this machine cannot start another process, or the working directory does not exist.
    pub fn start(line: &CommandLine) -> io::Result<(Self, ChildStdout, ChildStderr)> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", SUPERVISOR, "supervisor"])
            .arg(&line.program)
            .args(&line.arguments)
            .current_dir(&line.directory)
            .env_clear()
            .envs(&line.environment)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a requested pipe is missing");
        let commands = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let group = child.id().ok_or_else(missing)?;
        let control = Control {
            group,
            commands: Arc::new(Mutex::new(Some(commands))),
        };
        Ok((Process { child, control }, stdout, stderr))
    }

    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Waits for the end of the process, and kills the processes that it has left running. Returns the
    /// exit code, which is 128 + n after signal n, as in containers.
    pub async fn wait(&mut self) -> i32 {
        let status = self.child.wait().await;
        self.control.destroy().await;
        status.ok().and_then(|status| status.code()).unwrap_or(137)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;
    use tokio::io::AsyncReadExt as _;

    fn image(script: &str) -> (tempfile::TempDir, CommandLine) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("entrypoint");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment = BTreeMap::from([("ONE".to_owned(), "1 and more".to_owned())]);
        let argv = ["/entrypoint".to_owned(), "argument".to_owned()];
        let line = CommandLine::resolve(root.path(), None, &argv, environment).unwrap();
        (root, line)
    }

    /// Whether a process with this id exists and is not a zombie.
    fn is_running(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn end_of(pid: &str) {
        while is_running(pid) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_process_has_only_the_given_environment_and_its_exit_code_is_returned() {
        let (_root, line) = image("#!/bin/sh\n/usr/bin/env\necho \"got $1\"\nexit 3\n");
        let (mut process, mut stdout, _stderr) = Process::start(&line).unwrap();
        let mut output = String::new();
        stdout.read_to_string(&mut output).await.unwrap();
        assert_eq!(process.wait().await, 3);
        assert!(output.contains("ONE=1 and more\n"), "{output}");
        assert!(output.contains("got argument\n"), "{output}");
        assert!(!output.contains("HOME="), "{output}");
        assert!(!output.contains("CARGO"), "{output}");
    }

    #[tokio::test]
    async fn sigterm_reaches_the_process() {
        let script = "#!/bin/sh\ntrap 'exit 7' TERM\necho ready\nwhile :; do sleep 0.05; done\n";
        let (_root, line) = image(script);
        let (mut process, mut stdout, _stderr) = Process::start(&line).unwrap();
        stdout.read_exact(&mut [0; 6]).await.unwrap();
        process.control().signal("TERM").await;
        assert_eq!(process.wait().await, 7);
    }

    #[tokio::test]
    async fn sigkill_gives_exit_code_137() {
        let (_root, line) = image("#!/bin/sh\nexec sleep 1d\n");
        let (mut process, _stdout, _stderr) = Process::start(&line).unwrap();
        process.control().signal("KILL").await;
        assert_eq!(process.wait().await, 137);
    }

    #[tokio::test]
    async fn child_processes_are_killed_when_their_process_ends() {
        let (_root, line) = image("#!/bin/sh\nsleep 1d >/dev/null 2>&1 &\necho $!\nexit 0\n");
        let (mut process, mut stdout, _stderr) = Process::start(&line).unwrap();
        let mut orphan = String::new();
        stdout.read_to_string(&mut orphan).await.unwrap();
        process.wait().await;
        end_of(&orphan).await;
    }

    #[tokio::test]
    async fn a_process_ends_when_its_handles_are_dropped() {
        let (_root, line) = image("#!/bin/sh\ntrap '' TERM HUP\necho $$\nsleep 1d\n");
        let (process, mut stdout, _stderr) = Process::start(&line).unwrap();
        let mut pid = [0; 16];
        let read = stdout.read(&mut pid).await.unwrap();
        let pid = String::from_utf8_lossy(&pid[..read]).into_owned();
        assert!(is_running(&pid));
        drop(process);
        end_of(&pid).await;
    }

    /// Not a test of its own. The next test runs it in place of a local cloud.
    #[tokio::test]
    #[ignore = "the next test runs it in a process of its own"]
    async fn a_process_that_is_kept() {
        let (_root, line) = image("#!/bin/sh\ntrap '' TERM HUP\necho \"pid $$\"\nsleep 1d\n");
        let (_process, mut stdout, _stderr) = Process::start(&line).unwrap();
        let mut pid = [0; 32];
        let read = stdout.read(&mut pid).await.unwrap();
        eprintln!("{}", String::from_utf8_lossy(&pid[..read]));
        std::future::pending().await
    }

    #[tokio::test]
    async fn a_process_ends_when_the_local_cloud_is_killed() {
        let name = "ecs::process::tests::a_process_that_is_kept";
        let mut holder = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored", "--nocapture"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = holder.stderr.take().unwrap();
        let mut output = String::new();
        while !output.contains('\n') {
            let mut chunk = [0; 64];
            let read = stderr.read(&mut chunk).await.unwrap();
            assert_ne!(read, 0, "the process ended early");
            output.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        let pid = output.trim().trim_start_matches("pid ").to_owned();
        assert!(is_running(&pid), "{output:?}");
        holder.kill().await.unwrap();
        end_of(&pid).await;
    }

    #[test]
    fn programs_are_found_only_in_the_image() {
        let (root, _line) = image("#!/bin/sh\n");
        let resolve = |name: &str| {
            CommandLine::resolve(root.path(), None, &[name.to_owned()], BTreeMap::new())
        };
        assert_eq!(
            resolve("/bin/sh").unwrap_err(),
            "exec: \"/bin/sh\": stat /bin/sh: no such file or directory"
        );
        assert_eq!(
            resolve("sh").unwrap_err(),
            "exec: \"sh\": executable file not found in $PATH"
        );
        assert_eq!(
            resolve("./entrypoint").unwrap().program,
            root.path().join("./entrypoint")
        );
        assert_eq!(
            resolve("/../../entrypoint").unwrap().program,
            root.path().join("entrypoint")
        );
    }
}
