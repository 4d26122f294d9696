//! The secret is sent to the address of a task and to no other.

use super::*;

#[tokio::test]
async fn a_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let elsewhere = Application::with(0).await;
        for location in [
            format!("http://{}:{}/drain", elsewhere.address(), defaults::PORT),
            format!("//{}:{}/drain", elsewhere.address(), defaults::PORT),
            "/elsewhere".to_owned(),
        ] {
            let redirecting = Application::redirecting(status, &location).await;
            let aws = with(&[redirecting.address()]);
            let output = sweep(&aws).await.unwrap();
            assert_eq!(answers(&output), [(Answer::Unexpected, None)], "{status}");
            assert_eq!(output.verdict, Verdict::Draining);
            assert_eq!(redirecting.asked().len(), 1, "{status} to {location}");
        }
        assert_eq!(elsewhere.asked(), [], "{status}");
    }
}

#[tokio::test]
async fn a_text_that_is_not_an_address_is_not_asked() {
    let application = Application::with(0).await;
    let address = application.address();
    for given in [
        "localhost".to_owned(),
        "tasks.example.com".to_owned(),
        format!("someone@{address}"),
        format!("{address}:{}/drain?", defaults::PORT),
        format!("{address}#"),
        format!(" {address}"),
        String::new(),
    ] {
        let aws = with(&[&given]);
        let output = sweep(&aws).await.unwrap();
        assert_eq!(answers(&output), [(Answer::Unreachable, None)], "{given}");
        assert!(
            output.reason.contains("is not an IPv4 address"),
            "{}",
            output.reason
        );
    }
    assert_eq!(application.asked(), []);
    // The address alone is asked.
    let aws = with(&[address]);
    let output = sweep(&aws).await;
    assert_eq!(answers(&output.unwrap()), [(Answer::Ok, Some(0))]);
}
