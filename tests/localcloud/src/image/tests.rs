//! Images are pushed to a registry and pulled from it again.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::registry::{Registry, digest_of};
use super::{Config, File, Layer, PackedImage, pack, pull, push};

fn packed(text: &str) -> PackedImage {
    let app = File {
        path: "/bin/app".into(),
        mode: 0o755,
        contents: text.as_bytes().to_vec(),
    };
    let config = Config {
        entrypoint: vec!["/bin/app".into(), "--serve".into()],
        env: vec![("GREETING".into(), "hello".into())],
        exposed_port: Some(8000),
        working_dir: Some("/bin".into()),
    };
    pack(&Layer::of(&[app]).unwrap(), &config).unwrap()
}

#[test]
fn the_same_contents_make_the_same_digest() {
    assert_eq!(packed("a").digest(), packed("a").digest());
    assert_ne!(packed("a").digest(), packed("b").digest());
    assert!(packed("a").digest().starts_with("sha256:"));
}

#[test]
fn the_configuration_contains_what_the_image_starts_and_needs() {
    let image = packed("a");
    let config: serde_json::Value = serde_json::from_slice(&image.config).unwrap();
    assert_eq!(config["architecture"], "amd64");
    assert_eq!(config["os"], "linux");
    assert_eq!(
        config["config"]["Entrypoint"],
        json!(["/bin/app", "--serve"])
    );
    assert_eq!(config["config"]["Env"], json!(["GREETING=hello"]));
    assert_eq!(config["config"]["ExposedPorts"], json!({"8000/tcp": {}}));
    assert_eq!(config["config"]["WorkingDir"], "/bin");
    let mut tar = Vec::new();
    let mut gzip = flate2::read::GzDecoder::new(image.layer.as_ref());
    std::io::Read::read_to_end(&mut gzip, &mut tar).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], json!([digest_of(&tar)]));
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_as_it_was_pushed() {
    let registry = Registry::start().await;
    // More than one upload chunk (4 MiB).
    let text = "0123456789abcdef".repeat(400_000);
    let mut noise = 1u64;
    let text: String = text
        .chars()
        .map(|_| {
            noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1);
            char::from(b' ' + (noise >> 58) as u8)
        })
        .collect();
    let image = packed(&text);
    let digest = push(&registry.host, "test", "v1", &image).await.unwrap();
    assert_eq!(digest, image.digest());

    let folder = tempfile::tempdir().unwrap();
    let by_tag = pull(&registry.host, "test:v1", folder.path())
        .await
        .unwrap();
    let by_digest = pull(&registry.host, &format!("test@{digest}"), folder.path())
        .await
        .unwrap();
    assert_eq!(*by_tag, *by_digest);
    assert_eq!(by_tag.digest, digest);
    assert_eq!(by_tag.entrypoint, ["/bin/app", "--serve"]);
    assert_eq!(by_tag.cmd, Vec::<String>::new());
    assert_eq!(by_tag.env, ["GREETING=hello"]);
    assert_eq!(by_tag.working_dir.as_deref(), Some("/bin"));
    assert_eq!(by_tag.stop_signal, None);
    let app = by_tag.root.join("bin/app");
    assert_eq!(std::fs::read_to_string(&app).unwrap(), text);
    let mode = std::fs::metadata(&app).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[tokio::test]
async fn a_second_push_uploads_no_blob_again_and_moves_the_tag() {
    let registry = Registry::start().await;
    for text in ["a", "a", "b"] {
        let image = packed(text);
        push(&registry.host, "test", "v1", &image).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pulled = pull(&registry.host, "test:v1", folder.path())
            .await
            .unwrap();
        assert_eq!(pulled.digest, image.digest());
    }
    // Two layers and two configurations.
    assert_eq!(registry.blobs().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_fetch_and_unpack_an_image_once_and_it_is_removed_with_its_last_user() {
    let registry = Registry::start().await;
    push(&registry.host, "test", "v1", &packed("a"))
        .await
        .unwrap();
    let before = registry.blob_reads();
    let folder = tempfile::tempdir().unwrap();
    let in_folder = || std::fs::read_dir(folder.path()).unwrap().count();
    let pulls = (0..8).map(|_| pull(&registry.host, "test:v1", folder.path()));
    let pulled = futures_util::future::join_all(pulls).await;
    for image in &pulled {
        let app = image.as_ref().unwrap().root.join("bin/app");
        assert_eq!(std::fs::read_to_string(app).unwrap(), "a");
    }
    assert_eq!(registry.blob_reads() - before, 2);
    assert_eq!(in_folder(), 1);
    drop(pulled);
    assert_eq!(in_folder(), 0, "the image is removed with its last user");
}

#[tokio::test]
async fn a_packed_program_runs_from_the_folder_that_it_was_unpacked_to() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let env = [("A".to_string(), "1=2".to_string())];
    // Compressed for this layer only, then for others too, then read back.
    let cache = tempfile::tempdir().unwrap();
    let caches = [None, Some(cache.path()), Some(cache.path())];
    let [image, written, read] = caches.map(|cache| {
        let layer = Layer::of_program("/bin/true".as_ref(), cache).unwrap();
        pack(&layer, &Config::of_program(&env)).unwrap()
    });
    assert_eq!([written.digest(), read.digest()], [image.digest(); 2]);
    assert_eq!(std::fs::read_dir(cache.path()).unwrap().count(), 1);
    push(&registry.host, "test", "v1", &read).await.unwrap();
    let pulled = pull(&registry.host, "test:v1", folder.path())
        .await
        .unwrap();
    assert_eq!(pulled.env, ["A=1=2"]);
    let program = pulled
        .root
        .join(pulled.entrypoint[0].trim_start_matches('/'));
    let status = std::process::Command::new(program).status().unwrap();
    assert!(status.success());
}

/// Puts an image with these layers into the registry in Docker's format. Returns its digest.
fn docker_image(registry: &Registry, tag: &str, layers: &[(&str, Vec<u8>)]) -> String {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2025-10-27T12:21:12.123456789Z",
        "config": {
            "Cmd": ["serve"], "Env": ["PATH=/usr/bin"], "WorkingDir": "", "StopSignal": "SIGINT",
            "Hostname": "", "OnBuild": null, "Labels": null
        },
        "container_config": {"Hostname": ""},
        "docker_version": "27",
        "rootfs": {"type": "layers", "diff_ids": []},
        "history": [],
    });
    let descriptor = |media_type: &str, bytes: Vec<u8>| {
        let size = bytes.len();
        json!({"mediaType": media_type, "size": size, "digest": registry.put_blob(bytes)})
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|(media_type, bytes)| descriptor(media_type, bytes.clone()))
        .collect();
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(
            "application/vnd.docker.container.image.v1+json",
            config.to_string().into_bytes()
        ),
        "layers": layers,
    });
    registry.put_manifest(tag, media_type, manifest.to_string())
}

fn tar_with(path: &str, text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

const DOCKER_TAR: &str = "application/vnd.docker.image.rootfs.diff.tar";

#[tokio::test]
async fn a_docker_image_is_pulled_and_its_upper_layer_overrides_the_lower_one() {
    let registry = Registry::start().await;
    let layers = [
        (DOCKER_TAR, tar_with("a", "below")),
        (DOCKER_TAR, tar_with("a", "above")),
    ];
    let digest = docker_image(&registry, "v1", &layers);
    let folder = tempfile::tempdir().unwrap();
    let pulled = pull(&registry.host, "test:v1", folder.path())
        .await
        .unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(pulled.cmd, ["serve"]);
    assert_eq!(pulled.working_dir, None);
    assert_eq!(pulled.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(
        std::fs::read_to_string(pulled.root.join("a")).unwrap(),
        "above"
    );
}

fn index(registry: &Registry, tag: &str, platforms: &[(&str, &str)]) -> String {
    let entry = |(architecture, digest): &(&str, &str)| {
        json!({
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": digest, "size": 1,
            "platform": {"os": "linux", "architecture": architecture},
        })
    };
    let media_type = "application/vnd.oci.image.index.v1+json";
    let manifests: Vec<_> = platforms.iter().map(entry).collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
    registry.put_manifest(tag, media_type, index.to_string())
}

#[tokio::test]
async fn a_pull_of_a_multi_architecture_image_takes_linux_amd64() {
    let registry = Registry::start().await;
    let arm = docker_image(&registry, "arm", &[(DOCKER_TAR, tar_with("a", "arm"))]);
    let amd = docker_image(&registry, "amd", &[(DOCKER_TAR, tar_with("a", "amd"))]);
    let platforms = [("arm64", arm.as_str()), ("amd64", amd.as_str())];
    let whole = index(&registry, "v1", &platforms);
    let folder = tempfile::tempdir().unwrap();
    let pulled = pull(&registry.host, &format!("test@{whole}"), folder.path())
        .await
        .unwrap();
    assert_eq!(pulled.digest, whole);
    assert_eq!(
        std::fs::read_to_string(pulled.root.join("a")).unwrap(),
        "amd"
    );

    index(&registry, "arm-only", &[("arm64", &arm)]);
    let error = pull(&registry.host, "test:arm-only", folder.path())
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "CannotPullContainerError: pull image manifest has been retried 5 time(s): image Manifest \
         does not contain descriptor matching platform 'linux/amd64'"
    );
}

#[tokio::test]
async fn a_failed_pull_is_reported_with_the_message_of_ecs() {
    let registry = Registry::start().await;
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("test@sha256:{}", "0".repeat(64));
    for reference in ["test:none", "other:v1", &missing] {
        let error = pull(&registry.host, reference, folder.path())
            .await
            .unwrap_err()
            .of("account.dkr.ecr/test:none");
        assert_eq!(
            error.to_string(),
            "CannotPullContainerError: pull image manifest has been retried 5 time(s): failed to \
             resolve ref account.dkr.ecr/test:none: account.dkr.ecr/test:none: not found"
        );
    }
    let closed = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let error = pull(&closed, "test:v1", folder.path()).await.unwrap_err();
    assert!(
        error.to_string().contains("failed to do request"),
        "{error}"
    );
}

#[tokio::test]
async fn a_failed_pull_leaves_no_files_behind() {
    let registry = Registry::start().await;
    let good = (DOCKER_TAR, tar_with("a", "text"));
    docker_image(
        &registry,
        "attestation",
        &[("application/vnd.in-toto+json", b"{}".to_vec())],
    );
    docker_image(
        &registry,
        "garbage",
        &[good, (DOCKER_TAR, b"garbage".repeat(100))],
    );
    let folder = tempfile::tempdir().unwrap();
    for (reference, why) in [
        (
            "test:attestation",
            "no processor for media-type: application/vnd.in-toto+json",
        ),
        ("test:garbage", "failed to extract layer"),
    ] {
        let error = pull(&registry.host, reference, folder.path())
            .await
            .unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("CannotPullContainerError: "), "{error}");
        assert!(error.contains(why), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
