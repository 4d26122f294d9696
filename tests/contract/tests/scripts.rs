//! `infra/deploy.sh` with an `aws` that answers as a test says, and what builds and deployments download.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Answers a call by the first file of answers whose pattern matches it: the pattern, the exit status and the
/// output. A pattern that begins with `once ` answers one call. A call without an answer prints nothing.
const AWS: &str = r#"#!/bin/bash
cd "$(dirname "$0")"
echo "$*" >>calls
for file in answers/*; do
  { read -r pattern; read -r status; output=$(cat); } <"$file"
  if [[ "$*" == ${pattern#once } ]]; then
    [[ $pattern != once\ * ]] || rm "$file"
    [[ -z $output ]] || echo "$output"
    exit "$status"
  fi
done
"#;

/// Time passes at once, and DNS answers with one name server.
const SLEEP: &str = "#!/bin/bash\n";
const DIG: &str = "#!/bin/bash\necho ns-1.example.net.\n";

struct Deploy {
    folder: PathBuf,
    answers: usize,
}

struct Ended {
    is_success: bool,
    said: String,
    calls: Vec<String>,
}

impl Deploy {
    /// A run of the script, with a folder of its own for the name of the test.
    fn new(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("answers")).unwrap();
        for (program, text) in [("aws", AWS), ("sleep", SLEEP), ("dig", DIG)] {
            write_program(&folder.join(program), text);
        }
        Deploy { folder, answers: 0 }
    }

    fn fails(mut self, pattern: &str, output: &str) -> Self {
        let path = format!("answers/{:03}", self.answers);
        fs::write(self.folder.join(path), format!("{pattern}\n255\n{output}")).unwrap();
        self.answers += 1;
        self
    }

    fn answers(mut self, pattern: &str, output: &str) -> Self {
        let path = format!("answers/{:03}", self.answers);
        fs::write(self.folder.join(path), format!("{pattern}\n0\n{output}")).unwrap();
        self.answers += 1;
        self
    }

    fn status(self, stack: &str, status: &str) -> Self {
        let pattern =
            format!("*describe-stacks --stack-name {stack} --query Stacks[[]0].StackStatus*");
        match status {
            "" => self.fails(&pattern, "Stack with id does not exist"),
            status => self.answers(&pattern, status),
        }
    }

    fn status_once(self, stack: &str, status: &str) -> Self {
        let pattern =
            format!("once *describe-stacks --stack-name {stack} --query Stacks[[]0].StackStatus*");
        self.answers(&pattern, status)
    }

    /// A program of this name on the `PATH`, a script of Bash.
    fn program(self, name: &str, script: &str) -> Self {
        write_program(&self.folder.join(name), &format!("#!/bin/bash\n{script}\n"));
        self
    }

    /// The path of a file of this run.
    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// A file of settings with this text.
    fn settings(&self, text: &str) -> String {
        let path = self.path("settings.json");
        fs::write(&path, text).unwrap();
        path
    }

    fn run(self, variables: &[(&str, &str)]) -> Ended {
        // The tools of the virtual environment include Python.
        let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin");
        let path = format!("{}:{tools}:/usr/bin:/bin", self.folder.display());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../infra/deploy.sh");
        let output = Command::new(script)
            .env_clear()
            .envs([("PATH", path.as_str()), ("AWS_REGION", "eu-west-1")])
            .envs([("ENV", "test"), ("SKIP_BUILD", "1")])
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        Ended {
            is_success: output.status.success(),
            said: String::from_utf8(said).unwrap(),
            calls: fs::read_to_string(self.folder.join("calls"))
                .unwrap_or_default()
                .lines()
                .map(str::to_owned)
                .collect(),
        }
    }
}

fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Ended {
    fn called(&self, words: &str) -> bool {
        self.calls.iter().any(|call| call.contains(words))
    }

    /// The script ended before it changed anything, and said these words.
    fn refused(&self, words: &str) {
        assert!(
            !self.is_success && self.said.contains(words),
            "{}",
            self.said
        );
        for changes in ["deploy", "create-", "delete-", "modify-", "put-"] {
            assert!(!self.called(&format!(" {changes}")), "{:?}", self.calls);
        }
    }
}

const BASELINE: &str = "cloudformation deploy --stack-name test-baseline";
const LISTENER: &str =
    "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/test-alb/1/2";

/// An environment whose stacks are deployed.
fn deployed(name: &str) -> Deploy {
    Deploy::new(name)
        .answers("elbv2 describe-listeners*", LISTENER)
        .answers("*describe-stacks*'ListenerArn'*", LISTENER)
        .fails("ecr describe-repositories*", "RepositoryNotFoundException")
}

/// The values of <https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Stack.html>.
#[test]
fn every_status_of_a_stack_has_a_branch() {
    const READY: [&str; 5] = [
        "CREATE_COMPLETE",
        "UPDATE_COMPLETE",
        "UPDATE_ROLLBACK_COMPLETE",
        "IMPORT_COMPLETE",
        "IMPORT_ROLLBACK_COMPLETE",
    ];
    const NEW: [&str; 3] = ["", "REVIEW_IN_PROGRESS", "DELETE_COMPLETE"];
    const FAILED: [&str; 3] = ["CREATE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"];
    const UNDER_WAY: [&str; 9] = [
        "CREATE_IN_PROGRESS",
        "ROLLBACK_IN_PROGRESS",
        "DELETE_IN_PROGRESS",
        "UPDATE_IN_PROGRESS",
        "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS",
        "UPDATE_ROLLBACK_IN_PROGRESS",
        "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS",
        "IMPORT_IN_PROGRESS",
        "IMPORT_ROLLBACK_IN_PROGRESS",
    ];
    const FOR_AN_OPERATOR: [(&str, &str); 5] = [
        ("UPDATE_FAILED", "rollback-stack --stack-name test-baseline"),
        (
            "UPDATE_ROLLBACK_FAILED",
            "continue-update-rollback --stack-name test-baseline",
        ),
        ("IMPORT_ROLLBACK_FAILED", "correct what its events name"),
        ("DELETE_FAILED", "make destroy ENV=test"),
        (
            "PAUSED",
            "has the status PAUSED, which this script does not know",
        ),
    ];
    let certificate = [(
        "CERTIFICATE_ARN",
        "arn:aws:acm:eu-west-1:123456789012:certificate/1",
    )];
    for (index, status) in READY.into_iter().chain(NEW).chain(FAILED).enumerate() {
        let deploy = deployed(&format!("status-{index}"));
        let deploy = match status {
            _ if FAILED.contains(&status) => deploy
                .status_once("test-baseline", status)
                .status("test-baseline", ""),
            _ => deploy.status("test-baseline", status),
        };
        let ended = deploy
            .status("test-pipeline", "CREATE_COMPLETE")
            .run(&certificate);
        assert!(ended.is_success, "{status}: {}", ended.said);
        assert!(ended.called(BASELINE), "{status}: {:?}", ended.calls);
        let deletes = ended.called("delete-stack --stack-name test-baseline");
        assert_eq!(deletes, FAILED.contains(&status), "{status}");
        let creates = ended.said.contains("test-baseline: creating");
        assert_eq!(
            creates,
            !READY.contains(&status),
            "{status}: {}",
            ended.said
        );
    }
    for status in UNDER_WAY {
        let ended = deployed(status)
            .status_once("test-baseline", status)
            .status("test-baseline", "UPDATE_COMPLETE")
            .status_once("test-pipeline", status)
            .status("test-pipeline", "UPDATE_COMPLETE")
            .run(&[]);
        for stack in ["test-baseline", "test-pipeline"] {
            let waits = format!("{stack}: waiting for another operation, {status}");
            assert!(
                ended.is_success && ended.said.contains(&waits),
                "{}",
                ended.said
            );
        }
    }
    for (status, words) in FOR_AN_OPERATOR {
        let deploy = deployed(status).status("test-baseline", status);
        deploy
            .status("test-pipeline", "UPDATE_COMPLETE")
            .run(&[])
            .refused(words);
        let deploy = deployed(status).status("test-pipeline", status);
        let words = words.replace("baseline", "pipeline");
        deploy
            .status("test-baseline", "UPDATE_COMPLETE")
            .run(&[])
            .refused(&words);
    }
}

#[test]
fn a_hosted_zone_is_checked_before_anything_is_made() {
    let zone = |name: &str, zone: &str, records: &str| {
        Deploy::new(name)
            .status("test-*", "")
            .answers("route53 get-hosted-zone*", zone)
            .answers("route53 list-resource-record-sets*", records)
            .answers("ecr describe-repositories*", "")
            .run(&[("HOSTED_ZONE_ID", "Z1"), ("DOMAIN", "test.example.com")])
    };
    zone("private", "example.com.\tTrue\tNone\tNone\tNone\tNone", "").refused("is private");
    zone("elsewhere", "example.org.\tFalse\tns-1.example.net", "")
        .refused("test.example.com is not in it");
    zone("taken", "example.com.\tFalse\tns-1.example.net", "CNAME")
        .refused("a record for test.example.com (CNAME)");
    zone(
        "undelegated",
        "example.com.\tFalse\tns-2.example.net\tns-3.example.net",
        "",
    )
    .refused("set its name servers to ns-2.example.net, ns-3.example.net");
    let ended = zone(
        "good",
        "example.com.\tFalse\tns-2.example.net\tns-1.example.net",
        "",
    );
    assert!(!ended.said.contains("hosted zone"), "{}", ended.said);
    assert!(
        ended.called("ecr describe-repositories"),
        "{:?}",
        ended.calls
    );
}

/// The network `vpc-1` with a public and a private subnet in each of two zones, and what else is there.
const SUBNETS: &str = "subnet-1a\tvpc-1\teu-west-1a\nsubnet-1b\tvpc-1\teu-west-1b\n\
    subnet-2a\tvpc-1\teu-west-1a\nsubnet-2b\tvpc-1\teu-west-1b\nsubnet-2c\tvpc-1\teu-west-1c\n\
    subnet-3a\tvpc-3\teu-west-1a";

#[test]
fn a_network_is_checked_before_anything_is_made() {
    let new = |name: &str, parameters: &str| {
        Deploy::new(name)
            .status("test-*", "")
            .answers("ec2 describe-subnets*", SUBNETS)
            .fails("ecr describe-repositories*", "RepositoryNotFoundException")
            .run(&[
                (
                    "CERTIFICATE_ARN",
                    "arn:aws:acm:eu-west-1:123456789012:certificate/1",
                ),
                ("BASELINE_PARAMETERS", parameters),
            ])
    };
    let vpc = "VpcId=vpc-1 PublicSubnetIds=subnet-1a,subnet-1b PrivateSubnetIds=";
    let refused = [
        ("VpcId=vpc-1", "missing: PublicSubnetIds PrivateSubnetIds"),
        (
            "PrivateSubnetIds=subnet-2a,subnet-2b",
            "missing: VpcId PublicSubnetIds",
        ),
        (
            "VpcId=vpc-1 PrivateSubnetIds=subnet-2a,subnet-2b",
            "missing: PublicSubnetIds",
        ),
        (
            &format!("{vpc}subnet-2a,subnet-9"),
            "the subnet subnet-9 of PrivateSubnetIds does not exist in the region eu-west-1",
        ),
        (
            &format!("{vpc}subnet-2b,subnet-3a"),
            "the subnet subnet-3a of PrivateSubnetIds is in the network vpc-3, not in vpc-1",
        ),
        (
            &format!("{vpc}subnet-1a,subnet-2a"),
            "the subnets of PrivateSubnetIds are all in the zone eu-west-1a",
        ),
        (
            &format!("{vpc}subnet-2a"),
            "the subnets of PrivateSubnetIds are all in the zone eu-west-1a",
        ),
        (
            &format!("{vpc}subnet-2a,subnet-2c"),
            "a subnet in the zone eu-west-1c and PublicSubnetIds has none",
        ),
        (
            "VpcId=vpc-1 PublicSubnetIds=subnet-1a,subnet-1b,subnet-2b PrivateSubnetIds=subnet-2a,subnet-2b",
            "more than one subnet in the zone eu-west-1b",
        ),
    ];
    for (number, (parameters, words)) in refused.into_iter().enumerate() {
        new(&format!("network-{number}"), parameters).refused(words);
    }
    let ended = new("good-network", &format!("{vpc}subnet-2a,subnet-2b"));
    assert!(ended.called(&format!("{BASELINE} ")), "{}", ended.said);
    let own = new("own-network", "NatGateway=perZone");
    assert!(
        own.called(BASELINE) && !own.called("describe-subnets"),
        "{}",
        own.said
    );
}

/// The pipeline imports the network, and an export cannot change while it is imported.
#[test]
fn a_network_does_not_change() {
    let existing = |name: &str, parameters: &str| {
        deployed(name)
            .status("test-*", "UPDATE_COMPLETE")
            .answers("*describe-stacks*'VpcId'*", "vpc-1")
            .answers("*describe-stacks*'PublicSubnetIds'*", "subnet-1a,subnet-1b")
            .answers(
                "*describe-stacks*'PrivateSubnetIds'*",
                "subnet-2a,subnet-2b",
            )
            .answers("ec2 describe-subnets*", SUBNETS)
            .run(&[("BASELINE_PARAMETERS", parameters)])
    };
    for (name, parameter) in [
        ("another-network", "VpcId=vpc-3"),
        ("no-network", "VpcId="),
        (
            "more-private",
            "PrivateSubnetIds=subnet-2a,subnet-2b,subnet-2c",
        ),
    ] {
        let (left_out, _) = parameter.split_once('=').unwrap();
        existing(name, parameter).refused(&format!("leave out of BASELINE_PARAMETERS: {left_out}"));
    }
    let more = existing(
        "more-public",
        "PublicSubnetIds=subnet-1a,subnet-1b,subnet-2c",
    );
    assert!(more.is_success, "{}", more.said);
    existing("fewer-public", "PublicSubnetIds=subnet-1a,subnet-2a")
        .refused("all in the zone eu-west-1a");
    let same = existing(
        "same-network",
        "VpcId=vpc-1 PrivateSubnetIds=subnet-2a,subnet-2b",
    );
    assert!(same.is_success, "{}", same.said);

    let own = deployed("network-for-an-own-one")
        .status("test-*", "UPDATE_COMPLETE")
        .run(&[("BASELINE_PARAMETERS", "VpcId=vpc-1")]);
    own.refused("leave out of BASELINE_PARAMETERS: VpcId");
}

/// CloudFormation refuses a policy that names a resource that the stack does not have.
#[test]
fn the_stack_policy_names_only_what_the_stack_has() {
    let policy_of = |deploy: Deploy| {
        let ended = deploy.status("test-*", "UPDATE_COMPLETE").run(&[]);
        assert!(ended.is_success, "{}", ended.said);
        let said = ended.calls.join("\n");
        let (_, policy) = said.split_once("--stack-policy-body ").unwrap();
        let policy: serde_json::Value = serde_json::Deserializer::from_str(policy)
            .into_iter()
            .next()
            .unwrap()
            .unwrap();
        policy["Statement"][1]["Resource"]
            .as_array()
            .unwrap()
            .clone()
    };
    let own = policy_of(deployed("policy-of-an-own-network"));
    let network = [
        "Vpc",
        "PublicSubnetOne",
        "PublicSubnetTwo",
        "PrivateSubnetOne",
        "PrivateSubnetTwo",
    ];
    let network = network.map(|name| format!("LogicalResourceId/{name}"));
    let of_a_network = |it: &&serde_json::Value| network.iter().any(|name| *it == name);
    assert_eq!(
        own.iter().filter(of_a_network).count(),
        network.len(),
        "{own:?}"
    );
    let existing = deployed("policy-of-a-network-that-exists");
    let existing = policy_of(existing.answers("*describe-stacks*'VpcId'*", "vpc-1"));
    assert_eq!(
        existing.iter().filter(of_a_network).count(),
        0,
        "{existing:?}"
    );
    assert_eq!(existing.len(), own.len() - network.len());
}

#[test]
fn settings_that_cannot_be_stored_are_refused_before_anything_is_made() {
    let refused = [
        (
            "{\"keepPrevious\": 2,\n \"cpu\" 512}",
            "is not JSON: Expecting ':' delimiter: line 2 column 8",
        ),
        ("", "is not JSON: Expecting value: line 1 column 1"),
        ("{\"cpu\": NaN}", "is not JSON: NaN is not a value"),
        ("[1]", "is not a JSON object"),
        (
            "{\"command\": \"{{name}}\"}",
            "contains {{, which Parameter Store refuses",
        ),
        (
            &format!("{{\"a\": \"{}\"}}", "é".repeat(4092)),
            "has 8193 bytes, and Parameter Store takes 8192 at most",
        ),
    ];
    for (number, (text, words)) in refused.into_iter().enumerate() {
        let deploy = deployed(&format!("settings-{number}")).status("test-*", "UPDATE_COMPLETE");
        let file = deploy.settings(text);
        deploy.run(&[("SETTINGS", &file)]).refused(words);
    }
    let deploy = deployed("settings-of-no-file").status("test-*", "UPDATE_COMPLETE");
    deploy
        .run(&[("SETTINGS", "no.json")])
        .refused("not a file that can be read");
}

/// What `check-settings` says of a field, and the exit status with which it refuses.
const WRONG_FIELD: &str = "settings.json: invalid settings (/pulse/test/settings): field `cpu`: ";

#[test]
fn settings_that_every_push_would_be_refused_for_change_nothing() {
    let wrong = |name: &str| {
        let deploy = deployed(name)
            .status("test-*", "UPDATE_COMPLETE")
            .program("checker", &format!("echo '{WRONG_FIELD}' >&2; exit 2"));
        let file = deploy.settings("{\"cpu\": 300}");
        (deploy, file)
    };
    let (deploy, file) = wrong("wrong-field");
    let checker = deploy.path("checker");
    deploy
        .run(&[("SETTINGS", &file), ("CHECK_SETTINGS", &checker)])
        .refused(&format!("deploy: {WRONG_FIELD}"));

    // By default it is built, and nothing else before it.
    let (deploy, file) = wrong("wrong-field-of-a-build");
    let cargo = "echo \"cargo $*\" >>\"$(dirname \"$0\")/calls\"\n[[ $1 != run ]] || exec \"$(dirname \"$0\")/checker\"";
    let ended = deploy
        .program("cargo", cargo)
        .run(&[("SETTINGS", &file), ("SKIP_BUILD", "")]);
    let built = "--quiet --locked --package settings --bin check-settings";
    let run = format!("cargo run {built} -- test {file}");
    assert_eq!(ended.calls, [format!("cargo build {built}"), run]);
    ended.refused(&format!("deploy: {WRONG_FIELD}"));

    for (name, body, words) in [
        ("killed", "kill -9 $$", "checker failed"),
        ("not-a-program", "", "No such file"),
    ] {
        let deploy = deployed(name).status("test-*", "UPDATE_COMPLETE");
        let file = deploy.settings("{}");
        let deploy = match body {
            "" => deploy,
            body => deploy.program("checker", body),
        };
        let checker = deploy.path("checker");
        deploy
            .run(&[("SETTINGS", &file), ("CHECK_SETTINGS", &checker)])
            .refused(words);
    }

    let deploy = deployed("no-build").status("test-*", "UPDATE_COMPLETE");
    let file = deploy.settings("{}");
    deploy
        .program("cargo", "exit 101")
        .run(&[("SETTINGS", &file), ("SKIP_BUILD", "")])
        .refused("cannot build check-settings");
}

#[test]
fn settings_that_are_right_are_stored_after_the_check() {
    let deploy = deployed("right-settings").status("test-*", "UPDATE_COMPLETE");
    let file = deploy.settings("{\"cpu\": 512}");
    let checker = "echo \"checker $*\" >>\"$(dirname \"$0\")/calls\"; echo every field is right";
    let deploy = deploy.program("checker", checker);
    let checker = deploy.path("checker");
    let ended = deploy.run(&[("SETTINGS", &file), ("CHECK_SETTINGS", &checker)]);
    assert!(ended.is_success, "{}", ended.said);
    assert_eq!(ended.calls[0], format!("checker test {file}"));
    assert!(
        ended.said.contains("==> every field is right"),
        "{}",
        ended.said
    );
    assert!(ended.called("ssm put-parameter"), "{:?}", ended.calls);
}

/// A wrong field is then found by the next deployment.
#[test]
fn without_check_settings_the_script_says_what_it_did_not_check() {
    let deploy = deployed("skipped-build").status("test-*", "UPDATE_COMPLETE");
    let file = deploy.settings("{\"cpu\": 300}");
    let ended = deploy.run(&[("SETTINGS", &file)]);
    for words in [
        "only the syntax was checked, because SKIP_BUILD=1 builds no check-settings",
        &file,
    ] {
        assert!(ended.said.contains(words), "{}", ended.said);
    }
    assert!(ended.is_success && ended.called("ssm put-parameter"));
}

#[test]
fn settings_are_stored_if_they_differ() {
    let run = |name: &str, before: &str, after: &str| {
        let deploy = deployed(name).status("test-*", "UPDATE_COMPLETE");
        let file = deploy.settings(after);
        let ended = deploy
            .answers("ssm get-parameters*", before)
            .run(&[("SETTINGS", &file)]);
        assert!(ended.is_success, "{}", ended.said);
        ended
    };
    let put =
        "ssm put-parameter --name /pulse/test/settings --type String --tier Intelligent-Tiering";
    let tags = "--tags Key=pulse:environment,Value=test";

    let new = run("new-settings", "", "{\"keepPrevious\": 2}\n");
    let value = format!("{put} --value {{\"keepPrevious\": 2}} {tags}");
    assert!(new.called(&value), "{:?}", new.calls);
    assert!(new.said.contains("+{\"keepPrevious\": 2}"), "{}", new.said);

    let changed = run(
        "changed-settings",
        "{\n\"cpu\": 256\n}",
        "{\n\"cpu\": 512\n}\n",
    );
    assert!(
        changed.called(&format!("{put} --overwrite --value {{")),
        "{:?}",
        changed.calls
    );
    assert!(changed.called(&format!(
        "add-tags-to-resource --resource-type Parameter --resource-id /pulse/test/settings {tags}"
    )));
    assert!(
        changed.said.contains("-\"cpu\": 256\n+\"cpu\": 512\n"),
        "{}",
        changed.said
    );

    let same = run("same-settings", "{\"cpu\": 256}", "{\"cpu\": 256}\n");
    assert!(!same.called("put-parameter"), "{:?}", same.calls);
    assert!(
        same.said
            .contains("/pulse/test/settings: nothing to change"),
        "{}",
        same.said
    );

    let none = deployed("no-settings")
        .status("test-*", "UPDATE_COMPLETE")
        .run(&[]);
    assert!(none.is_success && !none.called("ssm "), "{:?}", none.calls);
}

/// CloudFormation cannot change what it does not know.
#[test]
fn the_listener_is_created_once_and_then_left_alone() {
    let new = Deploy::new("new-listener")
        .answers("elbv2 create-listener*", LISTENER)
        .status("test-*", "UPDATE_COMPLETE")
        .run(&[]);
    assert!(new.is_success, "{}", new.said);
    assert!(new.called("StatusCode=503"), "{:?}", new.calls);
    let given = format!("--parameter-overrides ListenerArn={LISTENER}");
    assert!(new.called(&given), "{:?}", new.calls);

    let known = deployed("known-listener")
        .status("test-*", "UPDATE_COMPLETE")
        .run(&[]);
    assert!(known.is_success, "{}", known.said);
    assert!(!known.called("elbv2 create-listener"), "{:?}", known.calls);
    assert!(!known.called("elbv2 modify-listener"), "{:?}", known.calls);

    let of_the_stack = deployed("listener-of-the-stack")
        .status("test-*", "UPDATE_COMPLETE")
        .answers("*describe-stack-resources*HttpsListener*", LISTENER)
        .run(&[]);
    of_the_stack.refused("still has the listener in it");
}

/// What an unchanged stack names must stay.
#[test]
fn no_package_expires() {
    let ended = deployed("packages")
        .status("test-*", "UPDATE_COMPLETE")
        .fails("s3api head-bucket*", "")
        .run(&[]);
    assert!(ended.called("s3api create-bucket"), "{:?}", ended.calls);
    assert!(!ended.called("lifecycle"), "{:?}", ended.calls);
}

#[test]
fn nothing_is_downloaded_without_a_checksum() {
    let read = |path: &str| {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../");
        fs::read_to_string(format!("{root}{path}")).unwrap()
    };
    let makefile = read("Makefile");
    let commands = [read("infra/build.sh"), makefile.clone()].concat();
    for line in commands.lines().filter(|line| !line.starts_with('#')) {
        if line.contains("pip install") {
            assert!(line.contains("--require-hashes"), "{line}");
        }
        if line.contains("cargo lambda build") || line.contains("cargo build") {
            assert!(line.contains("--locked"), "{line}");
        }
    }
    for name in ["requirements", "requirements-lint"] {
        assert!(makefile.contains(&format!("--requirement {name}.txt")));
        let installed = read(&format!("{name}.txt"));
        let wanted = read(&format!("{name}.in"));
        for package in wanted.lines().filter(|line| !line.starts_with('#')) {
            let pinned = format!("{package} \\\n    --hash=sha256:");
            assert!(installed.contains(&pinned), "{package}");
        }
    }
}

/// Of a virtual environment at the end of the `PATH`, cargo-lambda would not find its Zig.
#[test]
fn a_deployment_uses_the_tools_of_the_path_only_if_they_are_not_of_a_virtual_environment() {
    let needs = |folder: &str| {
        let deploy = Deploy::new(&format!("tools-{}", folder.replace(['/', '.'], "")));
        let tools = deploy.folder.join(folder);
        fs::create_dir_all(&tools).unwrap();
        write_program(&tools.join("cargo-lambda"), "#!/bin/bash\n");
        let show = [
            "--silent",
            "--eval",
            "show: ; @echo tools: $(DEPLOY_TOOLS)",
            "show",
        ];
        let path = format!(
            "{}:{}:/usr/bin:/bin",
            deploy.folder.display(),
            tools.display()
        );
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let make = Command::new("make")
            .args(show)
            .current_dir(root)
            .env("PATH", path)
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .output();
        String::from_utf8(make.unwrap().stdout).unwrap()
    };
    assert_eq!(needs("bin"), "tools:\n");
    assert_eq!(needs(".venv/bin"), "tools: .venv/ready\n");
}
