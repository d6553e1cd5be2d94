#!/usr/bin/env bash
# Makes deploy/secrets for compose.yaml, once: keys, a certificate, a database password, and the
# Telegram token that you give. The bot's folder has nothing of the server's but its certificate.
#
#   deploy/prepare.sh            (with KMS_SERVER=path/to/kms-server, or it runs the image)
set -euo pipefail
cd "$(dirname "$0")"
umask 077
[ ! -e secrets ] || { echo "deploy/secrets exists; keys are never overwritten" >&2; exit 1; }
read -r -s -p "The token that @BotFather gave: " token
echo
mkdir -p secrets/bot
if [ -n "${KMS_SERVER:-}" ]; then
    "$KMS_SERVER" keys new --directory secrets/server >/dev/null
else
    docker build -q -f Dockerfile --target server -t kms-server .. >/dev/null
    docker run --rm --user 0 -v "$PWD/secrets:/secrets" kms-server \
        keys new --directory /secrets/server >/dev/null
fi
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 \
    -subj /CN=server -addext subjectAltName=DNS:server,DNS:localhost \
    -keyout secrets/server/tls-key.pem -out secrets/server/tls.pem 2>/dev/null
password=$(openssl rand -hex 24)
printf '%s' "$password" > secrets/database-password
printf 'postgres://kms:%s@postgres/kms' "$password" > secrets/server/database-url
# PostgreSQL's image reads it as a user of its own; the folder around it stays closed.
chmod 644 secrets/database-password
cp secrets/server/tls.pem secrets/bot/server.pem
printf '%s' "$token" > secrets/bot/telegram-token
# The images run as this user.
if [ "$(id -u)" = 0 ]; then chown -R 10001 secrets; else sudo chown -R 10001 secrets; fi
echo "deploy/secrets is ready. Keep a copy of it where only you can read it."
