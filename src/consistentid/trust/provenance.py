"""How a file says what it is: XMP with the IPTC digital source type, readable by any metadata tool.

Metadata is a label, not a seal: it is lost when a picture is re-encoded or photographed.
"""

from xml.sax.saxutils import quoteattr

# https://cv.iptc.org/newscodes/digitalsourcetype/
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_KEYWORD = "XML:com.adobe.xmp"  # keyword of the PNG iTXt chunk, XMP specification part 3

_TEMPLATE = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType={source}
    xmp:CreatorTool={tool}/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def xmp_packet(*, tool: str) -> str:
    """XMP packet that declares a picture as made by a trained model.

    Args:
        tool: name and version of the program that made it.
    """
    return _TEMPLATE.format(source=quoteattr(DIGITAL_SOURCE_TYPE), tool=quoteattr(tool))


def declares_generated(xmp: str) -> bool:
    """Whether an XMP packet carries the source type this module writes."""
    return DIGITAL_SOURCE_TYPE in xmp
