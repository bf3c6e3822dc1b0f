#!/bin/sh
# Makes sure that the tests find a RabbitMQ and a PostgreSQL: by addresses that are set, or as programs.
set -eu
missing=""
if [ -z "${POSTBOTE_TEST_AMQP_URL:-}" ] && [ ! -x /usr/lib/rabbitmq/bin/rabbitmq-server ] && \
   ! command -v rabbitmq-server >/dev/null 2>&1; then
  missing="$missing rabbitmq-server"
fi
if [ -z "${POSTBOTE_TEST_DATABASE_URL:-}" ] && ! ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 && \
   ! command -v initdb >/dev/null 2>&1; then
  missing="$missing postgresql"
fi
# A pooler before PostgreSQL; the tests with it are left out where there is none and none can be installed.
if [ -n "$missing" ] && [ ! -x /usr/sbin/pgbouncer ]; then
  missing="$missing pgbouncer"
fi
[ -z "$missing" ] && exit 0
if [ -n "${DOCKER_HOST:-}" ] && docker info >/dev/null 2>&1; then
  exit 0 # the tests start their servers as containers
fi
as_root=""
if [ "$(id -u)" != 0 ]; then
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root=no; fi
fi
if ! command -v apt-get >/dev/null 2>&1 || [ "$as_root" = no ]; then
  echo "The tests need:$missing" >&2
  echo "Install it (on Debian: sudo apt-get install$missing), start a Docker engine and set DOCKER_HOST, or set" >&2
  echo "POSTBOTE_TEST_AMQP_URL and POSTBOTE_TEST_DATABASE_URL to servers that the tests may fill and empty." >&2
  exit 1
fi
echo "Installing for the tests:$missing"
# No service of the packages is wanted, only their programs: the tests start private ones on free ports.
policy=/usr/sbin/policy-rc.d
made=no
if [ ! -e $policy ]; then
  printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
  $as_root chmod +x $policy
  made=yes
fi
$as_root apt-get update -qq
status=0
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || status=$?
[ $made = yes ] && $as_root rm -f $policy
exit $status
