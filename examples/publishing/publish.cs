// Publishes to clients of fanwire from C#, by Redis or Valkey: dotnet run publish.cs 127.0.0.1:6379 odds:7 '{"home":1.85}'
// `fanwire script > publish.lua` writes the script that it needs. docs/records.md says what the arguments are.
using System.Net.Sockets;
using System.Text;

var (address, name, record) = (args[0].Split(':'), "c" + args[1], $$"""{"data":{{args[2]}}}""");
string[] kept = ["100", "300000"]; // publications, milliseconds: what the hubs' channel says
string[] words = ["EVAL", File.ReadAllText("publish.lua"), "2", $"fanwire:m:{name}", $"fanwire:s:{name}",
    $"fanwire:c:{name}", "PUBLISH", "", "0", "0", ..kept, "604800000", "300000", "0", record];

using var connection = new TcpClient(address[0], int.Parse(address[1]));
using var stream = connection.GetStream();
var request = new StringBuilder($"*{words.Length}\r\n");
foreach (var word in words)
    request.Append($"${Encoding.UTF8.GetByteCount(word)}\r\n{word}\r\n");
stream.Write(Encoding.UTF8.GetBytes(request.ToString()));
using var answer = new StreamReader(stream);
answer.ReadLine(); // *2
Console.WriteLine($"{answer.ReadLine()![1..]}-{answer.ReadLine()![1..]}"); // its position: epoch and offset
