# Runs a program in a folder of its own:
# enter.sh MODE FOLDER BOX_BYTES OUTPUT OUTPUT_BYTES HIDDEN ROOTS DIRECTORY WITHOUT PROGRAM...
#
# FOLDER/in holds the program's files, FOLDER/box is where it runs, and FOLDER/out/report is what comes out: the word
# `begun`, then the contents of the file OUTPUT (none where OUTPUT is empty). MODE is `namespaces` (this shell is then
# process 1 of a PID namespace and root of a user namespace, see sandbox.rs) or `plain`. HIDDEN are folders of the machine, a
# line each, that the program finds empty; only `namespaces` can do that.
#
# Where ROOTS are given, FOLDER/in holds archives: they are unpacked one over the other, the first without the folders
# WITHOUT, and the folders ROOTS of them stand at the top of the file system. The program begins in DIRECTORY. What it leaves
# in ROOTS is packed where it never was, once nothing of it lives, and comes out where OUTPUT is empty, with `kept` behind it
# if it is whole.
set -eu
mode=$1 folder=$2 box_bytes=$3 output=$4 output_bytes=$5 hidden=$6 roots=$7 directory=$8 without=$9
shift 9
umask 022

if [ "$mode" = namespaces ]; then
    # Files in memory: bounded all together, and gone with the namespace.
    mount -t tmpfs -o "size=$box_bytes,nr_inodes=16384,mode=755" tmpfs "$folder/box"
    if [ -z "$roots" ]; then
        found=$folder/box
        cp -R "$folder/in/." "$found/"
    else
        found=$folder/box/work
        mkdir "$found" "$folder/box/tmp" "$folder/box/top"
        exclude=
        for name in $without; do exclude="$exclude --exclude=./$name --exclude=$name"; done
        for archive in "$folder"/in/*.tar; do
            [ -f "$archive" ] || continue
            # Split on purpose: the names have no spaces.
            tar --no-same-owner $exclude -xf "$archive" -C "$found"
            exclude=
        done
        for name in $roots; do
            if [ -L "$found/$name" ] || [ ! -d "$found/$name" ]; then rm -rf "${found:?}/$name"; fi
            mkdir -p "$found/$name"
        done
        mkdir -p "$found/$directory" 2> /dev/null || :
    fi
    # Opened on a mount of its own, which then is in nobody's sight and does not keep the rest from turning read-only.
    mount --bind "$folder/out" "$folder/out"
    exec 3> "$folder/out/report"
    umount -l "$folder/out"
    printf '%s\n' "$hidden" | while IFS= read -r path; do
        [ -d "$path" ] || continue
        mount -t tmpfs -o ro,size=4k,mode=755 tmpfs "$path"
    done
    while read -r _ _ _ _ point options _; do
        case $point in /proc | /proc/* | "$folder/box") continue ;; esac
        case $options in ro | ro,*) continue ;; esac
        # What stays writable is found out when the sandbox is tried.
        mount -o remount,bind,ro "$(printf '%b' "$point")" 2> /dev/null || :
    done < /proc/self/mountinfo
    # Root of the namespace only in name.
    set -- setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
    if [ -z "$roots" ]; then
        mount --bind "$folder/box" /dev/shm 2> /dev/null || :
        mount --bind "$folder/box" /tmp
        found=/tmp
        cd /tmp
    else
        # A top of its own, on which everything else of the machine's stands as it is.
        top=$folder/box/top
        mount -t tmpfs -o size=64k,mode=755 tmpfs "$top"
        for entry in /*; do
            name=${entry#/}
            case " $roots tmp " in *" $name "*) continue ;; esac
            if [ -L "$entry" ]; then
                cp -P "$entry" "$top/"
            elif [ -d "$entry" ]; then
                mkdir "$top/$name"
                mount --rbind "$entry" "$top/$name"
            fi
        done
        # The box itself is in nobody's sight.
        umount -l "$top$folder/box" 2> /dev/null || :
        for name in $roots; do
            mkdir "$top/$name"
            mount --bind "$found/$name" "$top/$name"
        done
        mkdir "$top/tmp"
        mount --bind "$folder/box/tmp" "$top/tmp"
        mount --bind "$folder/box/tmp" "$top/dev/shm" 2> /dev/null || :
        mount -o remount,bind,ro "$top"
        set -- chroot "$top" sh -c 'cd "$1" 2> /dev/null || cd /; shift; exec "$@" 2>&1' enter.sh "$directory" "$@"
    fi
else
    if [ -n "$roots" ]; then
        echo "folders at the top of the file system ($roots) need user namespaces, which this machine does not allow" >&2
        exit 125
    fi
    found=$folder/box
    cp -R "$folder/in/." "$found/"
    exec 3> "$folder/out/report"
    cd "$found"
fi

echo begun >&3
status=0
"$@" 3>&- || status=$?
if [ "$mode" = namespaces ]; then
    # Whatever the program left behind, so that nothing changes what is read now. Process 1 itself is spared.
    kill -9 -1 2> /dev/null || :
fi
if [ -n "$output" ]; then
    if [ -f "$found/$output" ] && [ ! -L "$found/$output" ]; then
        head -c "$output_bytes" "$found/$output" >&3
    fi
elif [ -n "$roots" ] && tar -cf "$folder/box/packed.tar" -C "$found" . 2> /dev/null; then
    cat "$folder/box/packed.tar" >&3
    echo kept >&3
fi
exit "$status"
