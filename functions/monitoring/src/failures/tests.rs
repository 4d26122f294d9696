use super::*;
use time::macros::utc_datetime;

fn window(from: UtcDateTime, to: UtcDateTime) -> Option<Window> {
    let switched = utc_datetime!(2025-10-27 12:00:00);
    Some(Window { from, to, switched })
}

#[test]
fn minutes_count_that_began_after_the_switch_and_are_complete() {
    let switched = utc_datetime!(2025-10-27 12:00:20);
    let complete = utc_datetime!(2025-10-27 12:01:00);
    for (now, expected) in [
        (utc_datetime!(2025-10-27 12:01:30), None),
        (utc_datetime!(2025-10-27 12:04:59), None),
        (
            utc_datetime!(2025-10-27 12:05:00),
            window(complete, utc_datetime!(2025-10-27 12:02:00)),
        ),
        (
            utc_datetime!(2025-10-27 12:06:59),
            window(complete, utc_datetime!(2025-10-27 12:03:00)),
        ),
    ] {
        assert_eq!(Window::since(switched, now), expected, "{now}");
    }
    let on_the_minute = utc_datetime!(2025-10-27 12:00:00);
    let now = utc_datetime!(2025-10-27 12:04:00);
    let first = window(on_the_minute, utc_datetime!(2025-10-27 12:01:00));
    assert_eq!(Window::since(on_the_minute, now), first);
    assert_eq!(first.map(|window| window.minutes()), Some(1));
}

#[test]
fn without_requests_nothing_has_failed() {
    assert_eq!(Requests::default().failed_percent(), 0.0);
    let none = Requests::default();
    assert!(!none.are_worse(1, 1, &none));
}

#[test]
fn what_a_few_requests_met_is_no_comparison() {
    let requests = |all, failed| Requests { all, failed };
    let bad = requests(1_000.0, 600.0);
    assert!(bad.are_worse(5, 50, &requests(1.0, 1.0)));
    assert!(bad.are_worse(5, 50, &requests(49.0, 49.0)));
    assert!(!bad.are_worse(5, 50, &requests(50.0, 20.0)));
}
