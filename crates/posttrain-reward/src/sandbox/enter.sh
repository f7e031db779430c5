# Runs a program in a folder of its own: enter.sh MODE FOLDER BOX_BYTES OUTPUT OUTPUT_BYTES ROOTS PROGRAM...
#
# FOLDER/in holds the program's files, FOLDER/box is where it runs, and FOLDER/out/report is what comes out: the word
# `begun`, then the contents of the file OUTPUT (none where OUTPUT is empty). MODE is `namespaces` (this shell is then
# process 1 of a PID namespace and root of a user namespace, see sandbox.rs) or `plain`. ROOTS are names of folders of the
# box that stand at the top of the file system for the program (none where it is empty), which only `namespaces` can.
set -eu
mode=$1 folder=$2 box_bytes=$3 output=$4 output_bytes=$5 roots=$6
shift 6
umask 022

if [ "$mode" = namespaces ]; then
    # Files in memory: bounded all together, and gone with the namespace.
    mount -t tmpfs -o "size=$box_bytes,nr_inodes=16384,mode=755" tmpfs "$folder/box"
    cp -R "$folder/in/." "$folder/box/"
    # Opened on a mount of its own, which then is in nobody's sight and does not keep the rest from turning read-only.
    mount --bind "$folder/out" "$folder/out"
    exec 3> "$folder/out/report"
    umount -l "$folder/out"
    while read -r _ _ _ _ point options _; do
        case $point in /proc | /proc/* | "$folder/box") continue ;; esac
        case $options in ro | ro,*) continue ;; esac
        # What stays writable is found out when the sandbox is tried.
        mount -o remount,bind,ro "$(printf '%b' "$point")" 2> /dev/null || :
    done < /proc/self/mountinfo
    mount --bind "$folder/box" /dev/shm 2> /dev/null || :
    mount --bind "$folder/box" /tmp
    cd /tmp
    # Root of the namespace only in name.
    set -- setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
    if [ -n "$roots" ]; then
        # A top of its own, on which everything else of the machine's stands as it is.
        top=$folder/box/.top
        mkdir "$top"
        mount -t tmpfs -o size=64k,mode=755 tmpfs "$top"
        for entry in /*; do
            name=${entry#/}
            case " $roots " in *" $name "*) continue ;; esac
            if [ -L "$entry" ]; then
                cp -P "$entry" "$top/"
            elif [ -d "$entry" ]; then
                mkdir "$top/$name"
                mount --rbind "$entry" "$top/$name"
            fi
        done
        for name in $roots; do
            mkdir -p "$folder/box/$name" "$top/$name"
            mount --bind "$folder/box/$name" "$top/$name"
        done
        mount -o remount,bind,ro "$top"
        set -- chroot "$top" "$@"
    fi
else
    if [ -n "$roots" ]; then
        echo "folders at the top of the file system ($roots) need user namespaces, which this machine does not allow" >&2
        exit 125
    fi
    cp -R "$folder/in/." "$folder/box/"
    exec 3> "$folder/out/report"
    cd "$folder/box"
fi

echo begun >&3
status=0
"$@" 3>&- || status=$?
if [ "$mode" = namespaces ]; then
    # Whatever the program left behind, so that nothing changes what is read now. Process 1 itself is spared.
    kill -9 -1 2> /dev/null || :
fi
if [ -n "$output" ] && [ -f "$output" ] && [ ! -L "$output" ]; then
    head -c "$output_bytes" "$output" >&3
fi
exit "$status"
