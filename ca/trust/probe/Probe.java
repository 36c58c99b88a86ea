import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;

/** Opens one URL as a program without settings of its own does. Probe.class is this, compiled with --release 8. */
public class Probe {
  public static void main(String[] args) throws Exception {
    HttpURLConnection c = (HttpURLConnection) new URL(args[0]).openConnection();
    c.setConnectTimeout(8000);
    c.setReadTimeout(8000);
    System.out.println(System.getProperty("java.version") + " answered " + c.getResponseCode());
    InputStream in = c.getErrorStream() != null ? c.getErrorStream() : c.getInputStream();
    in.close();
  }
}
