# The seed as a shell script: settings, and the functions network, files and mounts, made of words that boot.sh knows.
# $user is the text of user-data, $meta and $net are the other two documents. All of them must be JSON, as vmwright's are.

def command: if type == "array" then map(tostring | @sh) | join(" ") else tostring end;
def script: map(command) | join("\n");
def shell_function($name; lines): "\($name)() {", lines, ":", "}";

# What cloud-init would do for these keys is done here, or is nothing in this guest.
def known: ["hostname", "fqdn", "prefer_fqdn_over_hostname", "preserve_hostname", "manage_etc_hosts", "updates", "users",
    "disable_root", "ssh_pwauth", "ssh_deletekeys", "ssh_genkeytypes", "no_ssh_fingerprints", "ssh", "growpart",
    "resize_rootfs", "locale", "bootcmd", "write_files", "mounts", "runcmd", "apt"];

def ethernet: .key as $key | .value | (."set-name" // $key) as $name |
    (.match.macaddress // "" | ascii_downcase) as $mac |
    "nic \($mac | @sh) \($name | @sh)",
    (.addresses[]? | "address \($name | @sh) \(. | @sh)"),
    (if .dhcp4 then "lease \($name | @sh) \(."dhcp4-overrides"."use-routes" != false)" else empty end),
    (.routes[]? | "route \($name | @sh) \(.to | @sh) \(.via | @sh)"),
    (.nameservers.addresses[]? | "resolver nameserver \(. | @sh)"),
    (.nameservers.search // [] | select(length > 0) | "resolver search \(join(" ") | @sh)");

def file: "file \(.path | @sh) \(.permissions // "0644" | @sh) \(.owner // "root:root" | @sh) \(.content // "" | @base64 | @sh)";
def user: "user \(.name | @sh) \(.sudo // "" | @sh) \(.ssh_authorized_keys // [] | join("\n") | @sh)";

($user | if startswith("#") then .[index("\n"):] else . end | fromjson) as $config | $meta[0] as $about |
"instance=\($about."instance-id" | @sh)",
"name=\($config.hostname // $about."local-hostname" | @sh)",
"bootcmd=\($config.bootcmd // [] | script | @sh)",
"runcmd=\($config.runcmd // [] | script | @sh)",
"left_out=\(($config | keys - known) + (if ($config.locale // "false") == "false" then [] else ["locale"] end)
    + (if any($config.users[]?; .hashed_passwd) then ["passwords"] else [] end) | join(" ") | @sh)",
shell_function("network"; $net[0].ethernets // {} | to_entries[] | ethernet),
shell_function("users"; $config.users[]? | user),
shell_function("files"; $config.write_files[]? | file),
shell_function("mounts"; $config.mounts[]? | "data_disk \(map(tostring | @sh) | join(" "))")
