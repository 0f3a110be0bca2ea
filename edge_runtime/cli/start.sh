#!/bin/sh
# Stands in `bin` as `edge-runtime` (pyproject.toml) and starts the program with the Python that it was installed with. A
# system upgrade may take that Python away or put another one in its place, which finds nothing of what was installed:
# then this says so, where Python would say ModuleNotFoundError. Exit code 2: no restart mends it.
fail() { # sentence
  case ${JOURNAL_STREAM-} in '') mark= ;; *) mark='<3>' ;; esac
  echo "${mark}error: $1: run tools/install again (tools/setup in a checkout)" >&2
  case " $* " in *" --json "*) printf '{"error": "%s"}\n' "$1" ;; esac
  case " $* " in *" --condition "*) exit 0 ;; esac # the unit's next command tells it as a failure
  exit 2
}

program=$(readlink -f "$0")
home=${program%/bin/*}
python=$home/bin/python3
[ -e "$home/pyvenv.cfg" ] || [ -x "$python" ] || python=$(command -v python3) # pip --user, or a system's own
[ -x "$python" ] || fail "the Python of this installation is gone: $python" "$@"
real=$(readlink -f "$python")
version=${real##*/}
case $version in
  python3.*[!0-9.]* | [!p]* | python | python3) # not a name that tells
    version=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2] + sys.abiflags)') ||
      fail "the Python of this installation does not start: $python" "$@" ;;
esac
for there in "$home"/lib/python3*/*-packages/edge_runtime-*.dist-info; do
  [ -d "$there" ] || break # installed in a way that this knows nothing of
  case $there in "$home/lib/$version/"*) made_for= && break ;; esac
  made_for=${there#"$home"/lib/}
done
[ -z "${made_for-}" ] || fail "edge-runtime was installed for ${made_for%%/*}, and $python is $version now" "$@"
exec "$python" -P -m edge_runtime "$@"
