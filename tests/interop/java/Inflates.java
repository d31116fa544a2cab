import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.zip.DataFormatException;
import java.util.zip.Inflater;

/**
 * The JDK's inflater, for another process: each line of stdin is the number of a stream and data in hexadecimal digits,
 * and the answer is what the data stands for, in the same form. A number that is one too high begins a stream.
 */
final class Inflates {
    private static final HexFormat HEX = HexFormat.of();

    public static void main(String[] arguments) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        List<Inflater> streams = new ArrayList<>();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            int space = line.indexOf(' ');
            int number = Integer.parseInt(line.substring(0, space));
            if (number == streams.size()) {
                streams.add(new Inflater(true)); // raw deflate, as WebSockets have it
            }
            System.out.println(inflate(streams.get(number), HEX.parseHex(line, space + 1, line.length())));
        }
    }

    private static String inflate(Inflater stream, byte[] data) {
        var out = new StringBuilder();
        byte[] room = new byte[1 << 16];
        stream.setInput(data);
        try {
            for (int count = stream.inflate(room); count > 0; count = stream.inflate(room)) {
                HEX.formatHex(out, room, 0, count);
            }
        } catch (DataFormatException error) {
            return "! " + error.getMessage();
        }
        if (stream.finished() || stream.getRemaining() > 0) {
            return "! the stream has ended";
        }
        return out.toString();
    }
}
