//! The AWS CLI of scripts, whose calls a server runs.

use std::process::Output;

use localcloud::LocalCloud;

use crate::cloud::start;

/// Runs a script. Returns its exit status, its standard output and its standard error.
async fn run(cloud: &LocalCloud, script: &str) -> (Option<i32>, String, String) {
    let mut command = cloud.command("bash").expect("the workspace has tools");
    let folder = tempfile::tempdir().expect("a folder");
    let in_its_folder = command.current_dir(folder.path());
    let ran = in_its_folder.args(["-c", script]).output().await;
    let Output {
        status,
        stdout,
        stderr,
    } = ran.expect("bash runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_has_the_files_folder_and_variables_of_the_script_and_returns_its_status() {
    let cloud = start().await;
    // The rest of the test would pass without the server too.
    let (_, aws, _) = run(&cloud, "command -v aws").await;
    assert!(aws.ends_with("/tests/localcloud/aws-cli/aws\n"), "{aws}");

    let identity = "AWS_DEFAULT_OUTPUT=text aws sts get-caller-identity --query Account";
    let (status, account, errors) = run(&cloud, identity).await;
    assert_eq!((status, &*account), (Some(0), "000000000000\n"), "{errors}");

    // A different folder, input and output through pipes, and concurrent calls.
    let copies = r#"
        echo "von Süden" >file
        aws s3api create-bucket --bucket copies >/dev/null
        aws s3 cp --quiet file s3://copies/one & aws s3 cp --quiet - s3://copies/two <file & wait
        aws s3 cp s3://copies/one - && aws s3 cp s3://copies/two - | tr a-z A-Z"#;
    let (status, read, errors) = run(&cloud, copies).await;
    assert_eq!(
        (status, &*read),
        (Some(0), "von Süden\nVON SüDEN\n"),
        "{errors}"
    );

    let (status, printed, errors) = run(&cloud, "aws no-such-service").await;
    assert_eq!((status, &*printed), (Some(2), ""), "{errors}");
    assert!(errors.contains("Invalid choice"), "{errors}");
    cloud.stop().await;
}
