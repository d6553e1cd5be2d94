#!/usr/bin/env bash
# Installs or upgrades what compose.yaml runs: builds the images, stops server and bot, makes a
# backup, migrates, starts. Run as root. It can be run again after a failure.
#
# A failure before the migration starts the old programs again; after it, they stay stopped.
set -Eeuo pipefail
cd "$(dirname "$0")"
compose() { docker compose -f compose.yaml "$@"; }

undo() {
    echo "the upgrade failed before the migration; starting what ran before" >&2
    compose start server bot >&2 || true
}

compose build server bot
trap undo ERR
compose stop bot server
compose up -d --wait postgres mongodb
compose run --rm --no-deps -T postgres-roles
compose run --rm --no-deps -T mongodb-roles
./backup.sh
trap 'echo "the migration failed: the programs stay stopped, the backup is above" >&2' ERR
compose run --rm --no-deps -T migrate
compose up -d --wait server
if [ -e secrets/bot/server-token ]; then
    compose up -d bot
else
    echo "make the bot's token, then start the bot: see the head of deploy/compose.yaml"
fi
