use super::*;
use time::macros::utc_datetime;

fn window(from: UtcDateTime, to: UtcDateTime) -> Option<Window> {
    Some(Window { from, to })
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
