#!/usr/bin/env bash
# Makes the environment if there is none, then runs a profile or the tests.
#   ./run_all.sh [PROFILE] [arguments for snakemake, e.g. --dry-run]   PROFILE: a file of config/, default quick
#   ./run_all.sh PROFILE --show    prints the whole of a profile, with what it extends
#   ./run_all.sh PROFILE --tune    tunes the settings of its rows on the validation split
#   ./run_all.sh test [arguments for pytest]
# Ctrl-C and kill end everything that it has started; the same command resumes.
set -euo pipefail
cd "$(dirname "$0")"
unset PYTHONPATH PYTHONHOME
unset ALTLIB_HOME # Snakemake watches artifacts/ and reports/ of this folder

die() {
  echo "run_all.sh: $*" >&2
  exit 1
}

trap 'echo "run_all.sh: stopped by Ctrl-C; run the same command again to go on where it stopped" >&2; exit 130' INT

profiles=$(for file in config/*.yaml; do printf "'%s' " "$(basename "$file" .yaml)"; done)
what=quick
case ${1:-} in
  -h | --help)
    sed -n '2,7s/^# *//p' "$0"
    echo "Profiles: ${profiles}"
    exit
    ;;
  '' | -*) ;;
  *)
    what=$1
    shift
    ;;
esac
if [ "$what" != test ] && [ ! -f "config/$what.yaml" ]; then
  die "there is no profile '$what'; choose one of: ${profiles}test"
fi

# Holds a lock on descriptor 9. It ends with this process and the children that this one waits for;
# Snakemake's own would outlive a power cut.
lock() { # lock FILE PYTHON WHAT
  local fault
  fault=$({ mkdir -p artifacts && echo >"artifacts/$1"; } 2>&1) || die "this folder cannot be written to: ${fault##*: }"
  exec 9>>"artifacts/$1"
  fault=$("$2" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>&1) && return
  case $fault in
    *BlockingIOError*) die "another ./run_all.sh $3 in this folder; wait until it ends, or stop it" ;;
    *) die "artifacts/ cannot be locked: ${fault##*: }" ;;
  esac
}

# --- the environment ---------------------------------------------------------------------------

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() { # 3.11 first: the lock was made with it
  local name
  for name in python3.11 python3 python3.12 python3.13 python; do
    if new_enough "$name"; then
      echo "$name"
      return
    fi
  done
  die "Python 3.11 or newer is needed and was not found (python3 is: $(python3 --version 2>&1 || true));" \
    "install it, or use conda: conda env create -f environment.yml && conda activate altlib"
}

if [ -n "${CONDA_PREFIX:-}" ] && { [ "${CONDA_DEFAULT_ENV:-}" = altlib ] || [ -n "${ALTLIB_CONDA:-}" ]; }; then
  environment=$CONDA_PREFIX
else
  environment=$PWD/.venv
fi
python=$environment/bin/python

# The stamp says what was installed from where; it is written only when everything is in place.
stamp=$environment/altlib-installed
wanted=$(echo "$PWD" && cat requirements.lock)
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || ! new_enough "$python"; then
  base=$(find_python) || exit 1
  lock .setup "$base" "sets up the environment"
  echo "Setting up the environment in $environment (once; 2 to 7 minutes) ..."
  rm -f "$stamp"
  if ! new_enough "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
    [ "$environment" = "$PWD/.venv" ] || die "the conda environment $environment lacks Python 3.11 or pip; make it from environment.yml"
    "$base" -m venv --clear .venv ||
      die "'$base -m venv' failed; install Python's venv and ensurepip (on Debian and Ubuntu: python3-venv)"
  fi
  echo "Installing the packages of requirements.lock ..."
  "$python" -m pip install --quiet --disable-pip-version-check --no-input -r requirements.lock ||
    die "the packages could not be installed (see above); run the same command again to go on"
  "$python" -m pip install --quiet --disable-pip-version-check --no-input --no-deps -e . ||
    die "altlib itself could not be installed (see above); run the same command again to go on"
  echo "$wanted" >"$stamp"
  exec 9>&-
  echo "The environment is ready."
fi

export PATH="$environment/bin:$PATH" # notebooks and Snakemake's shell commands find this python
export TOKENIZERS_PARALLELISM=false        # tokenizers warn when a process forks after using threads
export HF_HUB_DISABLE_TELEMETRY=1
export PYDEVD_DISABLE_FILE_VALIDATION=1    # kernels print a debugger warning without it

# --- the tests ---------------------------------------------------------------------------------

check() {
  echo "== $*"
  "$@" || die "'$*' failed (see above)"
}

if [ "$what" = test ]; then
  check ruff check --quiet .
  check ruff format --check --quiet .
  check mypy
  check lint-imports --no-logo
  echo "== pytest"
  exec python -m pytest "$@"
fi

# --- a profile ---------------------------------------------------------------------------------

case " $* " in *" --show "*) exec python -m altlib.profile "$what" ;; esac
tune=
for argument; do
  shift
  if [ "$argument" = --tune ]; then tune=yes; else set -- "$@" "$argument"; fi
done
[ -z "$tune" ] || export ALTLIB_TUNE=yes
case " $* " in *" -n "* | *" --dry-run "* | *" --dryrun "*) dry=yes ;; *) dry= ;; esac
[ -n "$dry" ] || lock .running python "is running"
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
echo "Running the profile '$what' on $cores cores ..."
# In the background, where Ctrl-C does not reach it: it ends when this process has ended.
ALTLIB_PROFILE=$what ALTLIB_PARENT=$$ ALTLIB_DRY=$dry ALTLIB_CALL=$(date +%s)-$$ \
  python -m snakemake --cores "$cores" "$@" \
  --nolock --rerun-incomplete --rerun-triggers mtime --quiet host reason rules &
wait $! ||
  die "the profile '$what' did not finish (see above); run the same command again to go on where it stopped"
[ -z "$dry" ] || exit 0
[ -z "$tune" ] || exec python -m altlib.lab.tune "$what"
reports=reports/$what
if [ -f "$reports/tables/main.md" ]; then
  echo
  cat "$reports/tables/main.md"
  echo
fi
echo "All tables, figures and executed notebooks: $reports/index.html"
failed=
for stamp in artifacts/stamps/"$what"/*.json; do
  ! grep -qs '"failed": ' "$stamp" || failed+="$(basename "$stamp" .json) "
done
[ -z "$failed" ] ||
  die "these notebooks did not run to their end: $failed(see $reports/notebooks/*.failed.ipynb); run the same command again to try again"
