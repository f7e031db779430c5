# Runs a program in a workspace: workspace.sh DIRECTORY NAMES PROGRAM...
#
# It begins in the workspace's folder, or above it where NAMES stand at the top of the file system. What is packed behind the
# program is NAMES, or everything.
set -u
directory=$1 names=$2
shift 2
if [ -n "$names" ]; then cd /tmp || exit 125; fi
for archive in .in-*.tar; do
    [ -f "$archive" ] || continue
    tar -xf "$archive" && rm -f "$archive" || exit 125
done
case $directory in
    /*) cd "$directory" || exit 125 ;;
    *) cd "./$directory" || exit 125 ;;
esac
home=$OLDPWD
"$@" < /dev/null 2>&1
status=$?
cd "$home" || exit 125
if [ -n "$names" ]; then
    # Split on purpose: the names have no spaces.
    tar -cf .workspace.tar $names
else
    tar -cf .workspace.tar --exclude=./.workspace.tar .
fi
exit "$status"
