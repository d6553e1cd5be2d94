#!/usr/bin/env bash
# Writes a backup of both databases of compose.yaml to deploy/backups/TIME, and deletes those older
# than 35 days. A folder with the name of a time is complete. Run as root, for instance by the timer
# deploy/systemd/kms-backup.timer.
#
# KMS_DATABASE_UID is the user that the databases' containers run as (999).
set -euo pipefail
cd "$(dirname "$0")"
umask 077
uid=${KMS_DATABASE_UID:-999}
run() { docker compose -f compose.yaml run --rm --no-deps -T "$@"; }

mkdir -p backups
exec 9>backups/lock
flock -n 9 || { echo "another backup is running" >&2; exit 1; }
rm -rf backups/new
install -d -m 700 -o "$uid" backups/new
# The accounts first: an SCK is written before the wallet that refers to it.
run backup-accounts
run backup-keys
for file in accounts.dump keys.archive; do
    [ -s "backups/new/$file" ] || { echo "the backup has no $file" >&2; exit 1; }
done
sync backups/new/*
name=$(date -u +%Y-%m-%dT%H-%M-%SZ)
mv backups/new "backups/$name"
echo "deploy/backups/$name is complete; copy it to another machine"
find backups -mindepth 1 -maxdepth 1 -name '20*Z' -mtime +35 -exec rm -r {} +
