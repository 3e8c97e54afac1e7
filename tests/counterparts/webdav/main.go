// rclone with what `serve webdav` over a folder needs, and no more: the whole of rclone knows some eighty storage services and takes
// many times as long to build.
package main

import (
	_ "github.com/rclone/rclone/backend/local"
	"github.com/rclone/rclone/cmd"
	_ "github.com/rclone/rclone/cmd/serve"
	_ "github.com/rclone/rclone/cmd/serve/webdav"
)

func main() {
	cmd.Main()
}
