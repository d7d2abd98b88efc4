use jiff::Timestamp;

use super::*;

fn subjects<'a>(extra: &'a [String]) -> Subjects<'a> {
    Subjects {
        node_name: "pi-0",
        node_ip: [192, 168, 1, 2].into(),
        service_ip: [10, 96, 0, 1].into(),
        cluster_domain: "cluster.local",
        extra,
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[test]
fn a_second_start_keeps_everything() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), &subjects(&[]), Start::First, at("2026-06-01T00:00:00Z")).unwrap();
    let second = Pki::open(dir.path(), &subjects(&[]), Start::First, at("2026-07-01T00:00:00Z")).unwrap();
    assert_eq!(first.authority.certificate_pem, second.authority.certificate_pem);
    assert_eq!(first.server.certificate_pem, second.server.certificate_pem);
    assert_eq!(first.service_account_key_pem, second.service_account_key_pem);
}

#[test]
fn leaves_are_renewed_before_they_end_and_for_new_names() {
    let dir = tempfile::tempdir().unwrap();
    let first = Pki::open(dir.path(), &subjects(&[]), Start::First, at("2026-06-01T00:00:00Z")).unwrap();
    let later = Pki::open(dir.path(), &subjects(&[]), Start::First, at("2027-04-01T00:00:00Z")).unwrap();
    assert_ne!(first.server.certificate_pem, later.server.certificate_pem);
    let extra = ["pi.example.org".to_owned(), "192.168.9.9".to_owned()];
    let renamed = Pki::open(dir.path(), &subjects(&extra), Start::First, at("2027-04-01T00:00:00Z")).unwrap();
    assert_ne!(later.server.certificate_pem, renamed.server.certificate_pem);
    assert_eq!(later.admin.certificate_pem, renamed.admin.certificate_pem, "its names did not change");
}

#[test]
fn a_board_that_boots_in_1970_issues_what_is_valid_later() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &subjects(&[]), Start::First, Timestamp::UNIX_EPOCH).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pki.server.certificate_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let valid_at = at("2026-11-01T00:00:00Z").as_second();
    assert!(certificate.validity().not_before.timestamp() < valid_at);
    assert!(certificate.validity().not_after.timestamp() > valid_at);
}

#[test]
fn what_was_issued_while_the_clock_was_ahead_is_valid_when_it_is_right() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &subjects(&[]), Start::First, at("2040-01-01T00:00:00Z")).unwrap();
    for text in [&pki.authority.certificate_pem, &pki.server.certificate_pem, &pki.admin.certificate_pem] {
        let (_, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert!(certificate.validity().not_before.timestamp() < at("2026-06-01T00:00:00Z").as_second());
    }
}

#[test]
fn a_plug_pulled_between_key_and_certificate_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let now = at("2026-06-01T00:00:00Z");
    let first = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap();
    fs::copy(dir.path().join("admin.key"), dir.path().join("kubelet.key")).unwrap();
    fs::write(dir.path().join("kube-apiserver.crt"), "").unwrap();
    let second = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap();
    assert_ne!(first.kubelet.certificate_pem, second.kubelet.certificate_pem, "the key was another's");
    assert_ne!(first.server.certificate_pem, second.server.certificate_pem, "the certificate was empty");
    assert_eq!(first.admin.certificate_pem, second.admin.certificate_pem);
}

#[test]
fn keys_are_for_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    Pki::open(dir.path(), &subjects(&[]), Start::First, at("2026-06-01T00:00:00Z")).unwrap();
    for name in ["ca.key", "service-account.key", "kube-apiserver.key", "admin.key"] {
        let mode = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_leaf_of_another_subject_is_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    let now = at("2026-06-01T00:00:00Z");
    let authority = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap().authority;
    // As earlier releases made it: an administrator's.
    fs::remove_file(dir.path().join("kube-apiserver-kubelet-client.crt")).unwrap();
    let master = Leaf::client("kube-apiserver-kubelet-client", Some("system:masters"));
    authority.leaf(dir.path(), "kube-apiserver-kubelet-client", &master, now).unwrap();
    let pki = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(pki.kubelet_client.certificate_pem.as_bytes()).unwrap();
    assert_eq!(pem.parse_x509().unwrap().subject().to_string(), "CN=kube-apiserver-kubelet-client");
}

const NONE: &[String] = &[];

fn problems(dir: &Path) -> Vec<String> {
    check(dir, Start::Later).iter().map(|e| format!("{e:#}")).collect()
}

/// Opens what is in the directory once more; an error must name the file.
#[track_caller]
fn reopen(dir: &Path, word: &str) -> Option<Pki> {
    let is_empty = fs::read_dir(dir).unwrap().next().is_none();
    let start = if is_empty { Start::First } else { Start::Later };
    match Pki::open(dir, &subjects(&[]), start, at("2026-06-01T00:00:00Z")) {
        Ok(pki) => Some(pki),
        Err(error) => {
            let error = format!("{error:#}");
            assert!(!word.is_empty() && error.contains(word), "{error}");
            assert_ne!(check(dir, Start::Later).len(), 0);
            None
        }
    }
}

#[test]
fn an_authority_is_never_replaced_by_another() {
    let lost: [(&[&str], &str); 3] =
        [(&["ca.key"], "ca.key is missing"), (&["ca.crt", "ca.key"], "ca.key is missing"), (&["ca.crt"], "")];
    for (names, word) in lost {
        let dir = tempfile::tempdir().unwrap();
        let first = reopen(dir.path(), "").unwrap();
        for name in names {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        for _ in 0..2 {
            let again = reopen(dir.path(), word);
            assert_eq!(again.is_none(), !word.is_empty(), "{names:?}");
            let Some(again) = again else { continue };
            // Made again from its key: everything that was signed is still good, and not issued anew.
            assert!(again.authority.has_signed(&first.admin.certificate_pem));
            assert_eq!(again.server.certificate_pem, first.server.certificate_pem);
            assert_eq!(problems(dir.path()), NONE);
        }
    }
}

#[test]
fn files_that_do_not_belong_together_are_told_or_made_anew() {
    let other = tempfile::tempdir().unwrap();
    reopen(other.path(), "").unwrap();
    for (name, word) in [
        ("ca.crt", "is not the certificate of"),
        ("ca.key", "is not the certificate of"),
        ("kubelet.crt", ""),
        ("admin.key", ""),
        ("service-account.key", ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        reopen(dir.path(), "").unwrap();
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
        let again = reopen(dir.path(), word);
        assert_eq!(again.is_none(), !word.is_empty(), "{name}");
        let Some(again) = again else { continue };
        assert!(again.authority.has_signed(&again.kubelet.certificate_pem), "{name}");
        assert_eq!(problems(dir.path()), NONE);
    }
    // A leaf and its key, both of another authority.
    let dir = tempfile::tempdir().unwrap();
    reopen(dir.path(), "").unwrap();
    for name in ["admin.crt", "admin.key"] {
        fs::copy(other.path().join(name), dir.path().join(name)).unwrap();
    }
    assert!(problems(dir.path())[0].contains("admin.crt is another authority's"), "{:?}", problems(dir.path()));
    let again = reopen(dir.path(), "").unwrap();
    assert!(again.authority.has_signed(&again.admin.certificate_pem));
}

#[test]
fn flipped_bits_are_mended_or_told() {
    let whole = tempfile::tempdir().unwrap();
    let first = reopen(whole.path(), "").unwrap();
    let names = ["ca.crt", "ca.key", "kube-apiserver.crt", "kube-apiserver.key", "admin.crt", "service-account.key"];
    for (n, name) in names.into_iter().cycle().take(120).enumerate() {
        let dir = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(whole.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        let bit = n * 7919 % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let Ok(again) = Pki::open(dir.path(), &subjects(&[]), Start::Later, at("2026-06-01T00:00:00Z")) else {
            assert!(name.ends_with(".key"), "{name}: a certificate can be made anew");
            continue;
        };
        assert!(again.authority.has_signed(&first.admin.certificate_pem), "{name} bit {bit}: the authority is another");
        for pair in [&again.server, &again.kubelet, &again.kubelet_client, &again.admin] {
            assert!(again.authority.has_signed(&pair.certificate_pem), "{name} bit {bit}");
        }
    }
}

/// Each content of a file with one bit flipped.
fn flips(file: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> + '_ {
    (0..file.len() * 8).map(|bit| {
        let mut flipped = file.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        (bit, flipped)
    })
}

#[test]
fn no_flipped_bit_of_a_certificate_or_key_passes() {
    let dir = tempfile::tempdir().unwrap();
    let first = reopen(dir.path(), "").unwrap();
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let (certificate, key) = (file("ca.crt"), file("ca.key"));
    assert!(authority::whole(&certificate).is_some() && pem::key(&key).is_some());
    for (bit, flipped) in flips(&certificate) {
        assert_eq!(authority::whole(&flipped), None, "ca.crt bit {bit}");
    }
    for (bit, flipped) in flips(&key) {
        assert!(pem::key(&flipped).is_none(), "ca.key bit {bit}");
    }
    let (certificate, key) = (file("admin.crt"), file("admin.key"));
    assert!(KeyPair::read(&certificate, &key).is_ok());
    for (bit, flipped) in flips(&certificate) {
        let pair = KeyPair::read(&flipped, &key);
        assert!(pair.is_err() || !first.authority.has_signed(&pair.unwrap().certificate_pem), "admin.crt bit {bit}");
    }
    // Not what we write, though some readers take it.
    let text = String::from_utf8(certificate.clone()).unwrap();
    for other in [
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!("# a note\n{text}"),
        text.replace('\n', "\r\n"),
        format!("{text}{text}"),
        text.replacen('\n', "", 2),
        String::new(),
    ] {
        assert_eq!(pem::Certificate::read(other.as_bytes()), None, "{other}");
    }
}

#[test]
fn a_damaged_file_is_made_again_or_named_and_check_names_it() {
    let whole = tempfile::tempdir().unwrap();
    let first = reopen(whole.path(), "").unwrap();
    for entry in fs::read_dir(whole.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let length = fs::read(whole.path().join(&name)).unwrap().len();
        // In the header, in the middle, and the last newline.
        for at in [3, length / 2, length - 1] {
            let dir = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(whole.path()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
            let path = dir.path().join(&name);
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 4;
            fs::write(&path, bytes).unwrap();
            let said = problems(dir.path());
            assert!(said.len() == 1 && said[0].contains(&path.display().to_string()), "{name} {at}: {said:?}");
            let is_lost = ["ca.key", "service-account.key"].contains(&name.as_str());
            let again = reopen(dir.path(), if is_lost { &name } else { "" });
            assert_eq!(again.is_none(), is_lost, "{name} {at}");
            let Some(again) = again else { continue };
            assert_eq!(problems(dir.path()), NONE, "{name} {at}");
            assert!(again.authority.has_signed(&first.kubelet.certificate_pem), "{name} {at}");
            assert!(first.authority.has_signed(&again.admin.certificate_pem), "{name} {at}");
        }
    }
}

#[test]
fn what_is_no_file_is_named_and_nobody_waits_for_it() {
    for name in ["ca.crt", "ca.key", "kubelet.crt", "admin.key", "service-account.key"] {
        let dir = tempfile::tempdir().unwrap();
        reopen(dir.path(), "").unwrap();
        let path = dir.path().join(name);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reopen(dir.path(), &format!("{} is a FIFO", path.display())).is_none());
        assert!(problems(dir.path()).iter().all(|said| said.contains(&format!("{} is a FIFO", path.display()))));
    }
}

#[test]
fn only_a_first_start_makes_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let now = at("2026-06-01T00:00:00Z");
    let refused = Pki::open(dir.path(), &subjects(&[]), Start::Later, now).err().unwrap().to_string();
    assert!(refused.contains("ca.key is missing"), "{refused}");
    let first = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap();
    for name in ["ca.key", "kube-apiserver.crt"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    // On purpose: everything else that there was is of no use, and made anew.
    let second = Pki::open(dir.path(), &subjects(&[]), Start::First, now).unwrap();
    assert!(!second.authority.has_signed(&first.admin.certificate_pem));
    assert!(second.authority.has_signed(&second.admin.certificate_pem));
    assert_eq!(second.service_account_key_pem, first.service_account_key_pem);
    assert_eq!(problems(dir.path()), NONE);
}
