#!/usr/bin/env bash
# Makes deploy/secrets for compose.yaml: keys, certificates, the passwords of the databases' roles,
# the settings of server and bot, and the Telegram token, which it asks for. It can be run again,
# also after an interruption: it makes what is missing, keeps the rest, and renews certificates in
# their last 30 days.
#
#   deploy/prepare.sh
#
# KMS_SERVER=path/to/kms-server is used instead of building the image. KMS_UID is the user that the
# containers of server and bot run as (10001), KMS_DATABASE_UID that of both databases (999).
set -euo pipefail
if [ -n "${KMS_SERVER:-}" ]; then
    KMS_SERVER=$(cd "$(dirname "$KMS_SERVER")" && pwd)/$(basename "$KMS_SERVER")
fi
cd "$(dirname "$0")"
umask 077
uid=${KMS_UID:-10001}
database_uid=${KMS_DATABASE_UID:-999}
if [ -e secrets/server ] && ! ls secrets/server >/dev/null; then
    echo "deploy/secrets cannot be read by this user; run this with sudo" >&2
    exit 1
fi
mkdir -p secrets/{server,bot,migrate,postgres,mongodb,admin,backup}

# Usage: write FILE TEXT. The file appears only when it is complete.
write() {
    printf '%s\n' "$2" >secrets/new
    mv secrets/new "secrets/$1"
}

# Usage: password FILE. Makes one, unless it is there.
password() {
    missing "$1" || return 0
    local text
    text=$(openssl rand -hex 24)
    write "$1" "$text"
}

# Succeeds if a file has to be created, and prints whether it is created or kept.
missing() {
    if [ -e "secrets/$1" ]; then
        echo "kept     deploy/secrets/$1"
        return 1
    fi
    echo "creating deploy/secrets/$1"
}

if missing server/keys; then
    # Renamed only when it is complete.
    rm -rf secrets/server/keys.new
    if [ -n "${KMS_SERVER:-}" ]; then
        "$KMS_SERVER" keys new --directory secrets/server/keys.new >/dev/null
    else
        docker build -q -f Dockerfile --target server -t kms-server .. >/dev/null
        docker run --rm --user 0 -v "$PWD/secrets/server:/etc/kms" kms-server \
            keys new --directory keys.new >/dev/null
    fi
    mv secrets/server/keys.new secrets/server/keys
fi

# The certificate authority that clients trust. No container sees its key.
ec=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
if missing ca-key.pem; then
    openssl req -x509 "${ec[@]}" -days 3650 -subj "/CN=kms-server of this machine" \
        -keyout secrets/ca-key.new -out secrets/ca.pem 2>/dev/null
    rm -f secrets/{server,postgres,mongodb}/tls.pem
    mv secrets/ca-key.new secrets/ca-key.pem
fi
authority=$(cat secrets/ca.pem)
for copy in {bot/server,server/database-ca,migrate/ca,mongodb/ca,admin/ca,backup/ca}.pem; do
    write "$copy" "$authority"
done

# Makes the certificate and the private key of a service, or renews them.
certificate() {
    local name=$1 folder=secrets/$1
    if [ -e "$folder/tls.pem" ] &&
        ! openssl x509 -in "$folder/tls.pem" -noout -checkend $((30 * 86400)) >/dev/null; then
        echo "renewing deploy/$folder/tls.pem; restart this service"
        rm "$folder/tls.pem"
    fi
    missing "$name/tls.pem" || return 0
    openssl req "${ec[@]}" -subj "/CN=$name" -keyout "$folder/tls-key.pem" \
        -out secrets/tls.csr 2>/dev/null
    openssl x509 -req -in secrets/tls.csr -CA secrets/ca.pem -CAkey secrets/ca-key.pem \
        -set_serial "0x$(openssl rand -hex 16)" -days 397 -out secrets/tls.new 2>/dev/null -extfile <(
            echo basicConstraints=critical,CA:FALSE
            echo "subjectAltName=DNS:$name,DNS:localhost"
            # MongoDB's replica set is also its own client.
            echo extendedKeyUsage=serverAuth,clientAuth
        )
    # MongoDB reads certificate and key from one file.
    [ "$name" != mongodb ] || cat "$folder/tls-key.pem" >>secrets/tls.new
    mv secrets/tls.new "$folder/tls.pem"
    rm secrets/tls.csr
}
certificate server
certificate postgres
certificate mongodb

# One password for each role of each database, which the jobs `postgres-roles` and `mongodb-roles`
# set: both superusers, the schema's owner, the server, the backup.
password postgres/admin-password
for role in kms_owner kms kms_backup; do
    password "admin/postgres-$role"
done
for user in admin kms kms_backup; do
    password "admin/mongodb-$user"
done
password mongodb/key-file

# What contains these passwords is written each time.
declare -A of
for file in postgres/admin-password admin/{postgres,mongodb}-{kms,kms_backup} \
    admin/postgres-kms_owner; do
    of[$file]=$(cat "secrets/$file")
done
postgres="@postgres/kms?sslmode=verify-full&sslrootcert"
mongodb="@mongodb:27017/?authSource=admin&tls=true&tlsCAFile"
write admin/pgpass "*:*:*:postgres:${of[postgres/admin-password]}"
write backup/pgpass "*:*:*:kms_backup:${of[admin/postgres-kms_backup]}"
write backup/mongodump.yaml \
    "uri: mongodb://kms_backup:${of[admin/mongodb-kms_backup]}$mongodb=/etc/kms/ca.pem"
write migrate/database-url \
    "postgres://kms_owner:${of[admin/postgres-kms_owner]}$postgres=/etc/kms-owner/ca.pem"
write server/database-url "postgres://kms:${of[admin/postgres-kms]}$postgres=database-ca.pem"
write server/key-database-url \
    "mongodb://kms:${of[admin/mongodb-kms]}$mongodb=database-ca.pem&replicaSet=rs0"

if missing server/.env; then
    text=$(sed -e 's|^KMS_SERVER__LISTEN=.*|KMS_SERVER__LISTEN=0.0.0.0:8443|' \
        -e 's|^KMS_SERVER__DATABASE__URL=.*|KMS_SERVER__DATABASE__URL_FILE=database-url|' \
        -e 's|^\(KMS_SERVER__KEY_DATABASE__URL\)=.*|\1_FILE=key-database-url|' \
        -e 's|^# \(KMS_SERVER__AUDIT__CHECKPOINT_PATH=\)|\1|' \
        server.env.example)
    write server/.env "$text"
fi
if missing bot/.env; then
    text=$(sed -e 's|^KMS_BOT__SERVER__URL=.*|KMS_BOT__SERVER__URL=https://server:8443|' \
        -e 's|^# KMS_BOT__STATE__PATH=.*|KMS_BOT__STATE__PATH=/var/lib/kms-bot/state|' \
        bot.env.example)
    write bot/.env "$text"
fi

if missing bot/telegram-token; then
    read -r -s -p "The token that @BotFather gave: " token
    echo
    [[ $token =~ ^[0-9]+:[A-Za-z0-9_-]{30,}$ ]] || { echo "that is not a bot's token" >&2; exit 1; }
    write bot/telegram-token "$token"
fi

# Usage: give UID FOLDER... Makes this user the owner.
give() {
    local as_root=()
    [ "$1" != "$(id -u)" ] || return 0
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" chown -R "$@"
}
give "$uid" secrets/server secrets/bot secrets/migrate
give "$database_uid" secrets/postgres secrets/mongodb secrets/admin secrets/backup
echo "deploy/secrets is ready. Set the chain in deploy/secrets/server/.env, and keep a copy of the"
echo "folder where only you can read it."
