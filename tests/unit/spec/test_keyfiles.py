"""Files of keys and secrets: taken when right, refused when dangerous, never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmwright.errors import SpecError
from vmwright.spec.load import load

from .conftest import Desk, missing, public_key

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
USER = "cloud: t\nusers: {amy: {%s}}\n"


def problem(desk: Desk, user: str) -> str:
    """The one problem of a user that says this."""
    (found,) = desk.problems(USER % user)
    return found


def test_keys_of_a_file_and_literal_ones(desk: Desk) -> None:
    one, two, three = (
        public_key(fill=1),
        f'from="10.0.0.0/8",no-pty {public_key("ssh-rsa", 2)}',
        public_key("ecdsa-sha2-nistp256", 3),
    )
    desk.write(f"# mine\n{one}\n\n  {two}\n{one}\n", "keys/mine.pub")
    cloud = desk.load(
        f"cloud: t\nusers: {{amy: {{ssh_keys: [./keys/mine.pub, {three}, {desk.root}/keys/mine.pub]}}}}\n"
        "templates: {b: {build: debian}}\nvms: {a: {template: b}}\n"
    )
    assert cloud.vms[0].guest.users[0].ssh_keys == (one, two, three)
    assert cloud.missing == cloud.warnings == ()


def test_home_directory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(desk.root))
    desk.write(public_key(), ".ssh/id.pub")
    assert desk.load(USER % "ssh_keys: ~/.ssh/id.pub").missing == ()
    assert missing(desk.load(USER % "ssh_keys: ~nobody-here/id.pub")) == [
        f"{desk.root}/cloud.yaml:2:25: users.amy.ssh_keys: the key file ~nobody-here/id.pub: "
        "there is no such home directory on this machine\n    name the whole path"
    ]


def test_a_key_file_that_is_not_here_is_told_to_the_plan(desk: Desk) -> None:
    cloud = desk.load(USER % "ssh_keys: [./none.pub], password_hash_file: ./none")
    assert missing(cloud) == [
        f"{desk.root}/cloud.yaml:2:26: users.amy.ssh_keys.0: the key file ./none.pub is not on this machine\n"
        "    name a file of public keys that is there",
        f"{desk.root}/cloud.yaml:2:59: users.amy.password_hash_file: the file of the password hash ./none is not on "
        "this machine\n"
        f"    write the hash into a file that only you can read: openssl passwd -6 > {desk.root}/none",
    ]


def todo(desk: Desk, key: str) -> str:
    """What is said to do about a key file that is not there; the directory's name is taken off."""
    (found,) = desk.load(USER % f"ssh_keys: {key}").missing
    return found.todo.replace(f"{desk.root}/", "")


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_key_of_the_usual_name_that_is_not_here_can_be_made(desk: Desk, kind: str) -> None:
    assert todo(desk, f"./id_{kind}.pub") == f"make it: ssh-keygen -t {kind} -f id_{kind}"
    assert todo(desk, f"'./a b/id_{kind}.pub'") == f"make it: ssh-keygen -t {kind} -f 'a b/id_{kind}'"


def test_keys_that_are_here_are_named(desk: Desk) -> None:
    desk.write(public_key(), "keys/one.pub")
    assert todo(desk, "./keys/id_ed25519.pub") == (
        "make it: ssh-keygen -t ed25519 -f keys/id_ed25519\nor name the one that is there: ./keys/one.pub")
    assert todo(desk, "./keys/amy.pub") == "name the one that is there: ./keys/one.pub"
    desk.write(public_key(), "keys/two.pub")
    assert todo(desk, "./keys/amy.pub") == "name one that is there: ./keys/one.pub, ./keys/two.pub"


@pytest.mark.parametrize("name", ["id_ed25519", "amy"])
def test_a_private_half_that_is_here_is_not_written_over(desk: Desk, name: str) -> None:
    desk.write(PRIVATE, name)
    assert todo(desk, f"./{name}.pub") == f"write it from its private half: ssh-keygen -y -f {name} > {name}.pub"


def test_a_private_key_file(desk: Desk) -> None:
    desk.write(PRIVATE, "id")
    assert problem(desk, "ssh_keys: [./id]") == (
        "cloud.yaml:2:26: users.amy.ssh_keys.0: ./id holds a PRIVATE key\n    name the public half: ./id.pub"
    )
    desk.write(f"{public_key()}\n{PRIVATE}", "both.pub")
    assert problem(desk, "ssh_keys: [./both.pub]").endswith(
        "./both.pub holds a PRIVATE key\n    name the file of the public half"
    )
    desk.write("PuTTY-User-Key-File-3: ssh-ed25519\n", "my.ppk")
    assert "./my.ppk holds a PRIVATE key" in problem(desk, "ssh_keys: [./my.ppk]")


def test_a_private_key_in_the_spec_is_not_shown(desk: Desk) -> None:
    found = problem(desk, f"ssh_keys: [{PRIVATE.replace(chr(10), ' ')!r}]")
    assert found.startswith("cloud.yaml:2:26: users.amy.ssh_keys.0: this is a PRIVATE key\n    name the public half")
    assert "b3Blb" not in found


@pytest.mark.parametrize(
    "key",
    ["nonsense", "id_ed25519.pub", "ssh-ed25519", "ssh-ed25519 AAAA me",
    "ssh-ed25519 !!!!", public_key().replace("ed25519 ", "rsa "),
     public_key().replace("ssh-ed25519", "ssh-foo")],
)  # fmt: skip
def test_what_is_no_public_key(desk: Desk, key: str) -> None:
    assert problem(desk, f"ssh_keys: ['{key}']").startswith(
        "cloud.yaml:2:26: users.amy.ssh_keys.0: this is not a public SSH key\n    write TYPE KEY [COMMENT], like "
        "ssh-ed25519"
    )


def test_a_key_file_of_something_else(desk: Desk) -> None:
    desk.write("hello\n", "a")
    assert "a line of ./a is not a public SSH key" in problem(desk, "ssh_keys: ./a")
    desk.write("# nothing\n", "a")
    assert "./a holds no key" in problem(desk, "ssh_keys: ./a")
    desk.write(b"\xff\xfe", "a")
    assert "./a is not UTF-8 text" in problem(desk, "ssh_keys: ./a")
    desk.write(b"x" * (1 << 20) + b"x", "a")
    assert "./a is larger than 1 MiB" in problem(desk, "ssh_keys: ./a")
    assert missing(desk.load(USER % "ssh_keys: ./"))[0].endswith(
        "the key file ./ cannot be read: Is a directory\n    name a file that you can read"
    )


@pytest.mark.parametrize(
    "crypt", ["$6$salt$abc/.", "$y$j9T$salt$hash", "$2b$12$abcdefghijklmnopqrstuv", "$6$rounds=5000$salt$hash"]
)
def test_a_password_hash_is_taken_and_never_shown(desk: Desk, crypt: str) -> None:
    desk.write(f"{crypt}\n", "hash")
    cloud = desk.load(
        (USER % "password_hash_file: ./hash, sudo: password")
        + "templates: {b: {build: debian}}\nvms: {a: {template: b}}\n"
    )
    user = cloud.vms[0].guest.users[0]
    assert user.password_hash == crypt
    assert crypt not in repr(cloud)


@pytest.mark.parametrize("content", ["hunter2", "", "$6$", "$6$salt$a b", "$9$salt$hash", "$6$a$b\n$6$c$d"])
def test_plain_text_is_no_password_hash(desk: Desk, content: str) -> None:
    desk.write(content, "hash")
    found = problem(desk, "password_hash_file: ./hash")
    assert found == (
        "cloud.yaml:2:35: users.amy.password_hash_file: ./hash holds no password hash ($6$... or $y$...); plain text "
        "is never taken\n"
        "    write the hash into a file that only you can read: openssl passwd -6 > FILE"
    )


def test_a_hash_in_the_spec_is_not_shown(desk: Desk) -> None:
    found = problem(desk, "password_hash_file: $6$salt$secret")
    assert "this is a hash, where the name of a file is needed" in found
    assert "secret" not in found
    found = problem(desk, "password: secret")
    assert found == "cloud.yaml:2:15: users.amy.password: unknown key\n    did you mean password_hash_file?"


def test_who_cannot_log_in(desk: Desk) -> None:
    assert desk.load(USER % "shell: /bin/zsh").warnings == (
        f"{desk.root}/cloud.yaml:2:14: users.amy: has neither ssh_keys nor password_hash_file: nobody can log in as "
        "this user",
    )
    assert problem(desk, f"sudo: password, ssh_keys: '{public_key()}'") == (
        "cloud.yaml:2:21: users.amy.sudo: sudo asks for a password, but the user has none\n"
        "    add password_hash_file, or write sudo: nopasswd"
    )


def test_user_and_group_names(desk: Desk) -> None:
    key = public_key()
    assert desk.problems(
        f"cloud: t\nusers: {{Amy: {{ssh_keys: {key}}}, b: {{ssh_keys: {key}, groups: [wheel, 'a b']}}}}\n"
    )[0] == (
        "cloud.yaml:2:9: users.Amy: 'Amy' is not a valid user name: lower-case letters, digits, _ and -, at most 32"
    )
    assert "users.b.groups.1: 'a b' is not a valid group name" in desk.problems(
        f"cloud: t\nusers: {{b: {{ssh_keys: {key}, groups: [wheel, 'a b']}}}}\n"
    )[0]  # fmt: skip


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "f.yaml").write_text("cloud: t\nusers: {amy: {ssh_keys: ./loop}}\n")
    assert missing(load(tmp_path / "f.yaml"))[0].endswith(
        "the key file ./loop cannot be read: Too many levels of symbolic links\n    name a file that you can read"
    )


def test_contents_of_files(desk: Desk) -> None:
    text = "cloud: t\ntemplates: {b: {build: debian}}\n"
    text += "vms: {a: {template: b, write_files: [{path: /a, source: ./secret}]}}\n"
    assert missing(desk.load(text))[0].endswith(
        "vms.a.write_files.0.source: the file ./secret is not on this machine\n"
        "    put the file there, or name one that is there"
    )
    desk.write(b"\xff", "secret")
    with pytest.raises(SpecError) as caught:
        load(desk.root / "cloud.yaml")
    assert "vms.a.write_files.0.source: ./secret is not UTF-8 text" in str(caught.value)
