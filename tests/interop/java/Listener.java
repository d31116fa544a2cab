import com.google.gson.Gson;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import okhttp3.OkHttpClient;
import okhttp3.Request;
import okhttp3.Response;
import okhttp3.WebSocket;
import okhttp3.WebSocketListener;
import okio.ByteString;

/**
 * OkHttp, which offers permessage-deflate by itself, does as ../node/deflate.js: it listens on each URL that comes as a
 * line of JSON on stdin, and says what it has heard once the last message is there.
 */
final class Listener extends WebSocketListener {
    private static final OkHttpClient CLIENT = new OkHttpClient();
    private final List<String> heard = new ArrayList<>();
    private final int number;
    private final String last;

    private Listener(int number, String last) {
        this.number = number;
        this.last = last;
    }

    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject asked = JsonParser.parseString(line).getAsJsonObject();
            var request = new Request.Builder().url(asked.get("url").getAsString()).build();
            CLIENT.newWebSocket(request, new Listener(asked.get("number").getAsInt(), asked.get("last").getAsString()));
        }
        System.exit(0);
    }

    private static synchronized void say(Map<String, ?> line) {
        System.out.println(new Gson().toJson(line));
    }

    private void hear(WebSocket socket, String kind, byte[] data) {
        try {
            heard.add(kind + HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data)));
        } catch (java.security.NoSuchAlgorithmException error) {
            throw new IllegalStateException(error);
        }
        if (last.equals(heard.get(heard.size() - 1))) {
            say(Map.of("number", number, "heard", heard));
            socket.cancel();
        }
    }

    @Override
    public void onMessage(WebSocket socket, String text) {
        hear(socket, "t", text.getBytes(StandardCharsets.UTF_8));
    }

    @Override
    public void onMessage(WebSocket socket, ByteString bytes) {
        hear(socket, "b", bytes.toByteArray());
    }

    @Override
    public void onFailure(WebSocket socket, Throwable error, Response response) {
        if (heard.isEmpty() || !last.equals(heard.get(heard.size() - 1))) {
            say(Map.of("number", number, "failed", error.toString(), "heard", heard));
        }
    }
}
