import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;

import org.codelibs.opensearch.runner.OpenSearchRunner;

/** Runs one OpenSearch node on loopback until standard input ends: {@code java Serve.java FOLDER ADDRESS}. Writes its address to a file once it answers. */
public class Serve {
    public static void main(String[] arguments) throws Exception {
        int http = freePort();
        int transport = freePort();
        OpenSearchRunner runner = new OpenSearchRunner();
        runner.onBuild((number, settings) -> {
            settings.put("network.host", "127.0.0.1");
            settings.put("http.port", String.valueOf(http));
            settings.put("transport.port", String.valueOf(transport));
            settings.put("discovery.type", "single-node");
            // A nearly full disk of a developer's machine is no matter of these tests.
            settings.put("cluster.routing.allocation.disk.threshold_enabled", "false");
        });
        runner.build(OpenSearchRunner.newConfigs().basePath(arguments[0]).numOfNode(1).clusterName("file360-tests").useLogger());
        runner.ensureYellow();
        Path partial = Path.of(arguments[1] + ".partial");
        Files.writeString(partial, "http://127.0.0.1:" + http + "\n");
        Files.move(partial, Path.of(arguments[1]), StandardCopyOption.ATOMIC_MOVE);
        while (System.in.read() >= 0) {
            // Whoever started this is still there.
        }
        Runtime.getRuntime().halt(0);
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }
}
