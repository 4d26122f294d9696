//! The digest by which an image is deployed.

/// Whether this is an image's digest: `sha256:` and 64 lower-case hexadecimal digits.
pub fn is_image_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_sha256_in_lower_case_is_a_digest() {
        let hex = "0123456789abcdef".repeat(4);
        assert!(is_image_digest(&format!("sha256:{hex}")));
        for wrong in [
            String::new(),
            hex.clone(),
            "sha256:".to_owned(),
            format!("sha512:{hex}"),
            format!("sha256:{hex}0"),
            format!("sha256:{}", &hex[1..]),
            format!("sha256:{}", hex.to_uppercase()),
            format!("sha256:{}", "\u{ff11}".repeat(64)),
            format!("sha256:{hex}\n"),
            format!(" sha256:{hex}"),
        ] {
            assert!(!is_image_digest(&wrong), "{wrong}");
        }
    }
}
