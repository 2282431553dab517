use std::sync::mpsc as std_mpsc;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

async fn next(answers: &mut mpsc::Receiver<Answer>) -> Answer {
    timeout(LIMIT, answers.recv()).await.expect("an answer in time").expect("the resolver lives")
}

fn ask(resolver: &mut Resolver<Answer>, name: &str) {
    resolver.ask(Request::Resolve(name.to_owned()));
}

#[tokio::test]
async fn localhost_is_known_everywhere_and_nonsense_nowhere() {
    let (sender, mut answers) = mpsc::channel(4);
    let mut resolver = Resolver::new(sender);
    ask(&mut resolver, "localhost");
    let answer = next(&mut answers).await;
    assert_eq!(answer.name, "localhost");
    assert!(
        answer.found.as_ref().is_ok_and(|all| all.iter().all(IpAddr::is_loopback) && !all.is_empty()),
        "{answer:?}"
    );
    // Too long for any name: no name server is asked.
    let wrong = "x".repeat(300);
    ask(&mut resolver, &wrong);
    assert!(next(&mut answers).await.found.is_err());
}

/// A resolver whose names beginning with `hang` have no answer until the sender is dropped.
fn hanging(answers: mpsc::Sender<Answer>) -> (Resolver<Answer>, std_mpsc::Sender<()>) {
    let (release, held) = std_mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let resolver = Resolver::with(answers, move |name| {
        if name.starts_with("hang") {
            let _ = held.lock().map(|held| held.recv());
        }
        Ok(vec![IpAddr::from([10, 0, 0, 1])])
    });
    (resolver, release)
}

#[tokio::test]
async fn a_name_that_hangs_delays_no_other() {
    let (sender, mut answers) = mpsc::channel(64);
    let (mut resolver, release) = hanging(sender);
    (1..ASKED_MAX).for_each(|n| ask(&mut resolver, &format!("hang{n}")));
    for n in 0..40 {
        let name = format!("n{n}");
        ask(&mut resolver, &name);
        assert_eq!(next(&mut answers).await, Answer { name, found: Ok(vec![IpAddr::from([10, 0, 0, 1])]) });
    }
    drop(release);
    for _ in 1..ASKED_MAX {
        assert!(next(&mut answers).await.name.starts_with("hang"));
    }
}

#[tokio::test]
async fn questions_beyond_the_limit_wait_and_are_answered_in_any_case() {
    let (sender, mut answers) = mpsc::channel(64);
    let (mut resolver, release) = hanging(sender);
    resolver.limit = Duration::from_millis(50);
    (0..ASKED_MAX + 4).for_each(|n| ask(&mut resolver, &format!("hang{n}")));
    for _ in 0..ASKED_MAX + 4 {
        let found = next(&mut answers).await.found.unwrap_err();
        assert!(found.contains("no answer within 50ms"), "{found}");
    }
    drop(release);
}
